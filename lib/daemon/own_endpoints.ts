/** Keeps the list of this node's own endpoints fresh, from all that tells of one. */
import { type Cidr, type Endpoint, formatEndpoint } from "../addr.ts";
import type { AdvertisedEndpoint } from "../coord/api.ts";
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { RtNetlink } from "../netlink.ts";
import { resolveServers, type StunClient } from "../stun/mod.ts";
import { advertise, localEndpoints, sameEndpoints } from "./endpoints.ts";

/** Well under the 30 s after which many NATs forget a mapping (RFC 4787 section 4.3). */
const STUN_INTERVAL_MS = 20_000;
const STUN_TIMEOUT_MS = 3_000;
/** Several addresses change at once when an interface comes up. */
export const SETTLE_MS = 200;

export interface OwnEndpointsOptions {
  rtnl: RtNetlink;
  port: number;
  /** Addresses in there are tunnels'. */
  overlay: Cidr;
  stun: StunClient;
  stunServers: readonly string[];
  /** What the user says, for a port that was forwarded by hand. */
  given: readonly Endpoint[];
  /** What a router has mapped for us, now. */
  portMapped: () => Endpoint | undefined;
  clock: Clock;
  log: Log;
  /** The list is another. */
  onChange: (endpoints: readonly AdvertisedEndpoint[]) => void;
  /** Peers should hear from us: an address of this host is another, or a NAT's mapping is. */
  onMoved: (what: "address" | "mapping") => void;
}

export class OwnEndpoints {
  readonly #options: OwnEndpointsOptions;
  #list: AdvertisedEndpoint[];
  /** Ends the pause between two looks. */
  #wake = new AbortController();
  /** Something changed that those looks have not taken in yet. */
  #hasNews = false;

  constructor(options: OwnEndpointsOptions) {
    this.#options = options;
    this.#list = this.#gather([]);
  }

  get list(): readonly AdvertisedEndpoint[] {
    return this.#list;
  }

  /** Looks again soon. */
  look(): void {
    this.#hasNews = true;
    this.#wake.abort();
  }

  /** Asks STUN at once, each 20 s and after {@link look}; until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { onChange, onMoved } = this.#options;
    let mapped: Endpoint[] = [];
    let isTold = false;
    while (!signal.aborted) {
      mapped = await this.#askStun(signal) ?? mapped;
      const list = this.#gather(mapped);
      if (!isTold || !sameEndpoints(this.#list, list)) {
        this.#list = list;
        onChange(list);
        // The first time all peers learn them from the coordinator anyway.
        if (isTold) onMoved("mapping");
        isTold = true;
      }
      const before = this.#local();
      await this.#pause(signal);
      // Peers hear from a new address at once, before STUN has answered.
      if (before.join() !== this.#local().join()) onMoved("address");
    }
  }

  #local(): string[] {
    const { rtnl, port, overlay } = this.#options;
    return localEndpoints(rtnl, port, overlay).map(formatEndpoint).sort();
  }

  #gather(mapped: readonly Endpoint[]): AdvertisedEndpoint[] {
    const { rtnl, port, overlay, given, portMapped } = this.#options;
    const external = portMapped();
    return advertise({
      given,
      local: localEndpoints(rtnl, port, overlay),
      portmap: external ? [external] : [],
      stun: mapped,
    });
  }

  /** Undefined when no server answered: then what was known stands. */
  async #askStun(signal: AbortSignal): Promise<Endpoint[] | undefined> {
    const { stun, stunServers, log } = this.#options;
    if (stunServers.length === 0) return [];
    try {
      const servers = await resolveServers(stunServers);
      const options = { timeoutMs: STUN_TIMEOUT_MS, signal, firstOnly: true };
      const answers = await stun.query(servers, options);
      if (answers.length > 0) return answers.map(({ mapped }) => mapped);
      log.warn("endpoint collection incomplete", { error: "no STUN server answers" });
    } catch (error) {
      if (signal.aborted) return undefined;
      log.warn("endpoint collection incomplete", { error: errorText(error) });
    }
    return undefined;
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    this.#wake = new AbortController();
    const either = AbortSignal.any([this.#wake.signal, signal]);
    if (!this.#hasNews) await clock.sleep(STUN_INTERVAL_MS, either).catch(() => {});
    if (!this.#hasNews) return;
    await clock.sleep(SETTLE_MS, signal).catch(() => {});
    this.#hasNews = false;
  }
}
