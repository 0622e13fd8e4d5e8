/** A mapping that stays: renewed in time, made again where the gateway has lost it. */
import {
  type Endpoint,
  equalEndpoints,
  formatEndpoint,
  type Ip,
  isPrivate,
  isUsableEndpoint,
  UNSPECIFIED_4,
} from "../addr.ts";
import {
  type Clock,
  type Log,
  type Random,
  silentLog,
  systemClock,
  systemRandom,
} from "../edges.ts";
import { errorText } from "../errors.ts";
import { hearAnnouncements } from "./announcements.ts";
import { PortMapRefusedError } from "./errors.ts";
import { establish, type Established } from "./establish.ts";
import { withDeadline } from "./exchange.ts";
import { type PortMapNet, systemNet } from "./net.ts";
import { NONCE_LENGTH } from "./pcp.ts";
import {
  type GatewayAccess,
  type LeaseState,
  type MapRequest,
  type PortMapProtocol,
  PROTOCOLS,
} from "./protocol.ts";

const DEFAULT_LIFETIME_SECONDS = 7200;
/** A gateway may grant any time; a day is as long as one is believed (RFC 6887 section 15). */
const MAX_LIFETIME_SECONDS = 86_400;
const DEFAULT_CHECK_MS = 60_000;
/** Between two tries that fail: RFC 6887 section 11.2.1 has 4 s as the least. */
const MIN_RETRY_MS = 4000;
const MAX_RETRY_MS = 60_000;
/** For saying good-bye. */
const UNMAP_MS = 1000;

export interface MapPortOptions {
  /** The router of the default route: see `findGateway`. */
  gateway: Ip;
  /** This host's address on the way there; the mapping leads to it. */
  local: Ip;
  /** UDP port of this host. */
  internalPort: number;
  /** What is asked for first; the internal port unless told. The gateway may choose another. */
  externalPort?: number;
  /** 7200 s unless told. */
  lifetimeSeconds?: number;
  /** How often the gateway is asked whether it has lost the mapping; 60 s unless told. */
  checkMs?: number;
  /** All unless told. */
  protocols?: readonly PortMapProtocol[];
  /**
   * 12 random bytes, PCP's proof of whose a mapping is. A program that gives the same again
   * after a crash takes its old mapping over; else that port is refused until it has expired.
   */
  nonce?: Uint8Array;
  /** Whenever {@link PortMapping.external} has become another. */
  onChange?: (external: Endpoint | undefined) => void;
  net?: PortMapNet;
  clock?: Clock;
  random?: Random;
  log?: Log;
  /** Ends the asking, and later the renewing. */
  signal?: AbortSignal;
}

/** Disposing ends the renewing and deletes the mapping in the gateway; twice is harmless. */
export interface PortMapping extends AsyncDisposable {
  /** By which it was made last. */
  readonly protocol: PortMapProtocol;
  /** Where others reach the internal port. Undefined while the mapping is lost. */
  readonly external: Endpoint | undefined;
  /**
   * Whether {@link PortMapping.external} is a place for others. Else there is another NAT above
   * the gateway, and the address is one of that NAT's inside.
   */
  readonly isPublic: boolean;
  /** As the gateway granted it last. */
  readonly lifetimeSeconds: number;
  /** Renews it now: after a wake-up, or when there is reason to doubt it. */
  refresh(): void;
}

/**
 * Asks the gateway for a UDP port by all protocols at once, takes PCP before NAT-PMP before UPnP
 * by what answers within a second, and keeps the mapping. Throws {@link NoPortMappingError},
 * within 3 s where nobody answers, and the signal's reason; what was asked for just then ends with
 * its lifetime.
 */
export async function mapPort(options: MapPortOptions): Promise<PortMapping> {
  const keeper = new Keeper(options);
  await keeper.start();
  return keeper;
}

/** Whether others on the internet can send to it. */
export function isPublicEndpoint(endpoint: Endpoint): boolean {
  return isUsableEndpoint(endpoint) && !isPrivate(endpoint.ip);
}

class Keeper implements PortMapping {
  readonly #access: GatewayAccess;
  readonly #protocols: readonly PortMapProtocol[];
  readonly #checkMs: number;
  readonly #onChange: (external: Endpoint | undefined) => void;
  readonly #log: Log;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  /** What is asked for next: the external endpoint is the one that was had before. */
  #request: MapRequest;
  #held!: Established;
  #isLost = false;
  #expiresMs = 0;
  #renewMs = 0;
  #wake = new AbortController();
  /** When the renewing has ended. */
  readonly #quit = new AbortController();
  #running: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: MapPortOptions) {
    const { gateway, local, internalPort, signal } = options;
    const { net = systemNet, clock = systemClock, random = systemRandom } = options;
    this.#access = { gateway, local, net, clock, random };
    this.#protocols = options.protocols ?? PROTOCOLS;
    this.#checkMs = options.checkMs ?? DEFAULT_CHECK_MS;
    this.#onChange = options.onChange ?? (() => {});
    this.#log = options.log ?? silentLog;
    this.#signal = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
    this.#request = {
      internalPort,
      external: { ip: UNSPECIFIED_4, port: options.externalPort ?? internalPort },
      lifetimeSeconds: options.lifetimeSeconds ?? DEFAULT_LIFETIME_SECONDS,
      nonce: options.nonce ?? random(NONCE_LENGTH),
    };
  }

  async start(): Promise<void> {
    this.#hold(await this.#establish());
    const { signal } = this.#quit;
    const hearing = hearAnnouncements(this.#access, () => this.refresh(), signal);
    this.#running = this.#keep().finally(() => this.#quit.abort()).then(() => hearing);
  }

  get protocol(): PortMapProtocol {
    return this.#held.mapper.protocol;
  }

  get external(): Endpoint | undefined {
    return this.#isLost ? undefined : this.#held.lease.external;
  }

  get isPublic(): boolean {
    return this.external !== undefined && isPublicEndpoint(this.external);
  }

  get lifetimeSeconds(): number {
    return this.#held.lease.lifetimeSeconds;
  }

  refresh(): void {
    this.#renewMs = 0;
    this.#wake.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.#isLost) return;
    const { mapper, lease } = this.#held;
    try {
      await withDeadline(
        this.#access.clock,
        UNMAP_MS,
        new AbortController().signal,
        (signal) => mapper.unmap(this.#request, lease, signal),
      );
    } catch (error) {
      // It ends by itself when it is not renewed.
      this.#log.debug("port mapping not deleted", { error: errorText(error) });
    }
  }

  async #keep(): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        await this.#sleep(Math.min(this.#checkMs, this.#renewMs - this.#access.clock.nowMs()));
        if (this.#renewMs <= this.#access.clock.nowMs() || !await this.#isKept()) {
          await this.#renew();
        }
      } catch (error) {
        if (this.#signal.aborted) return;
        this.#fail(error);
      }
    }
  }

  /** Until {@link refresh} or, at most, for `ms`. Throws the signal's reason. */
  async #sleep(ms: number): Promise<void> {
    try {
      await this.#access.clock.sleep(
        Math.max(0, ms),
        AbortSignal.any([this.#signal, this.#wake.signal]),
      );
    } catch {
      this.#signal.throwIfAborted();
    }
    this.#wake = new AbortController();
  }

  async #isKept(): Promise<boolean> {
    if (this.#isLost) return false;
    const state = await this.#check();
    if (state === "lost") {
      this.#log.info("gateway has lost the port mapping", { protocol: this.protocol });
      this.#expiresMs = 0;
    }
    return state === "kept";
  }

  async #check(): Promise<LeaseState> {
    const { mapper, lease } = this.#held;
    try {
      return await mapper.check(this.#request, lease, this.#signal);
    } catch (error) {
      if (error instanceof PortMapRefusedError) return "unknown"; // renewing will tell
      throw error;
    }
  }

  async #renew(): Promise<void> {
    this.#hold(await this.#renewAsBefore() ?? await this.#establish());
  }

  /** Undefined where the gateway would not; it may do by another protocol. */
  async #renewAsBefore(): Promise<Established | undefined> {
    const { mapper } = this.#held;
    if (this.#isLost) return undefined;
    try {
      return { mapper, lease: await mapper.map(this.#request, this.#signal) };
    } catch (error) {
      this.#signal.throwIfAborted();
      const fields = { protocol: mapper.protocol, error: errorText(error) };
      this.#log.debug("port mapping not renewed", fields);
      return undefined;
    }
  }

  #establish(): Promise<Established> {
    return establish(this.#access, this.#protocols, this.#request, this.#signal);
  }

  #hold(established: Established): void {
    const before = this.#held ? this.external : undefined;
    const isFirst = !this.#held;
    this.#held = established;
    this.#isLost = false;
    const { external, lifetimeSeconds } = established.lease;
    this.#request = { ...this.#request, external };
    const lifetimeMs = Math.min(lifetimeSeconds, MAX_LIFETIME_SECONDS) * 1000;
    const nowMs = this.#access.clock.nowMs();
    this.#expiresMs = nowMs + lifetimeMs;
    this.#renewMs = nowMs + Math.max(lifetimeMs / 2, MIN_RETRY_MS);
    if (!isFirst && !(before && equalEndpoints(before, external))) this.#changed(external);
  }

  /** The old mapping counts until it would have expired. */
  #fail(error: unknown): void {
    const nowMs = this.#access.clock.nowMs();
    const leftMs = this.#expiresMs - nowMs;
    this.#renewMs = nowMs +
      (this.#isLost || leftMs <= 0
        ? MAX_RETRY_MS
        : Math.min(MAX_RETRY_MS, Math.max(MIN_RETRY_MS, leftMs / 2)));
    if (leftMs > 0 || this.#isLost) return;
    this.#isLost = true;
    this.#log.info("port mapping lost", { error: errorText(error) });
    this.#changed(undefined);
  }

  #changed(external: Endpoint | undefined): void {
    const text = external && formatEndpoint(external);
    this.#log.info("port mapping changed", { protocol: this.protocol, endpoint: text });
    this.#onChange(external);
  }
}
