/** A port mapping at the home router, for as long as this host is behind one that grants it. */
import { type Endpoint, formatEndpoint, type Ip, isPrivate } from "../../addr.ts";
import { aborted, type Clock, type Log, type Random } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import type { RtNetlink } from "../../netlink.ts";
import { findGateway, mapPort, type PortMapNet, type PortMapping } from "../../portmap/mod.ts";

/**
 * A router that refused, or did not answer, is asked again after these: after a power cut this host is
 * up before the router has an address, and before its port mapping runs.
 */
const RETRY_MS = [30_000, 120_000, 600_000] as const;
const NONCE_LENGTH = 12;

export interface PortMapperOptions {
  rtnl: RtNetlink;
  port: number;
  /** By this the router knows a mapping as ours again after a crash. */
  secret: Uint8Array<ArrayBuffer>;
  /** The system's unless told. */
  net?: PortMapNet;
  clock: Clock;
  random: Random;
  log: Log;
  /** {@link PortMapper.external} is another. */
  onChange: () => void;
}

interface Way {
  gateway: Ip;
  local: Ip;
}

export class PortMapper {
  readonly #options: PortMapperOptions;
  #external: Endpoint | undefined;
  #way: Way | undefined;
  /** Ends what was begun with the present way. */
  #moved = new AbortController();

  constructor(options: PortMapperOptions) {
    this.#options = options;
  }

  /** Where the router lets others in to our port; undefined where it does not. */
  get external(): Endpoint | undefined {
    return this.#external;
  }

  /** Until `signal` is aborted; then the mapping is deleted. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const nonce = await nonceOf(this.#options.secret);
    for (let failures = 0; !signal.aborted; failures++) {
      this.#moved = new AbortController();
      const stop = AbortSignal.any([signal, this.#moved.signal]);
      this.#way = wayOut(this.#options.rtnl);
      if (this.#way) await this.#hold(this.#way, nonce, stop);
      this.#set(undefined);
      const pauseMs = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]!;
      const hasFailed = await clock.sleep(pauseMs, stop).then(() => true, () => false);
      if (!hasFailed) failures = -1; // this host is elsewhere, and all begins anew
    }
  }

  /** Begins anew where the router or our address is another. */
  networkChanged(): void {
    const way = wayOut(this.#options.rtnl);
    const isSame = way?.gateway === this.#way?.gateway && way?.local === this.#way?.local;
    if (!isSame) this.#moved.abort();
  }

  async #hold(way: Way, nonce: Uint8Array, stop: AbortSignal): Promise<void> {
    const { port, net, clock, random, log } = this.#options;
    const onChange = () => this.#set(mapping.isPublic ? mapping.external : undefined);
    let mapping: PortMapping;
    try {
      const request = { ...way, internalPort: port, nonce, signal: stop };
      const edges = { clock, random, log, ...(net ? { net } : {}) };
      mapping = await mapPort({ ...request, ...edges, onChange });
    } catch (error) {
      if (!stop.aborted) log.debug("no port mapping", { error: errorText(error) });
      return;
    }
    await using _held = mapping;
    const endpoint = mapping.external ? formatEndpoint(mapping.external) : "none";
    log.info("port mapped", { endpoint, protocol: mapping.protocol, public: mapping.isPublic });
    onChange();
    await aborted(stop);
  }

  #set(external: Endpoint | undefined): void {
    const text = (endpoint?: Endpoint) => endpoint && formatEndpoint(endpoint);
    if (text(external) === text(this.#external)) return;
    this.#external = external;
    this.#options.onChange();
  }
}

/** Undefined where this host has a public address of its own. */
function wayOut(rtnl: RtNetlink): Way | undefined {
  const way = findGateway(rtnl);
  return way && isPrivate(way.local) ? way : undefined;
}

async function nonceOf(secret: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const hash = await crypto.subtle.digest("SHA-256", secret);
  return new Uint8Array(hash).subarray(0, NONCE_LENGTH);
}
