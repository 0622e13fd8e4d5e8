/** Keeps the list of this node's own endpoints fresh, from all that tells of one. */
import { type Cidr, type Endpoint, type Family, familyOf, formatEndpoint } from "../addr.ts";
import type { AdvertisedEndpoint } from "../coord/api.ts";
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { RtNetlink } from "../netlink.ts";
import type { StunClient, StunServer } from "../stun/mod.ts";
import { advertise, localEndpoints, sameEndpoints } from "./endpoints.ts";
import { resolveReachable } from "./reachable.ts";

/** Well under the 30 s after which many NATs forget a mapping (RFC 4787 section 4.3). */
const STUN_INTERVAL_MS = 20_000;
const STUN_TIMEOUT_MS = 3_000;
/** For so long after the answer over one family, that over the other one is waited for. */
const FAMILY_GRACE_MS = 100;
/** Several addresses change at once when an interface comes up. */
export const SETTLE_MS = 200;

export interface OwnEndpointsOptions {
  rtnl: RtNetlink;
  port: number;
  /** Of addresses that the data plane can use. */
  families: readonly Family[];
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
  /** The list was told once. */
  #isTold = false;
  /** What STUN servers see of us, over each family. */
  readonly #mapped = new Map<Family, Endpoint[]>();
  /** Ends the pause between two looks. */
  #wake = new AbortController();
  /** Something changed that those looks have not taken in yet. */
  #hasNews = false;

  constructor(options: OwnEndpointsOptions) {
    this.#options = options;
    this.#list = this.#gather();
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
    while (!signal.aborted) {
      await this.#askStun(signal);
      this.#tell();
      const before = this.#local();
      await this.#pause(signal);
      // Peers hear from a new address at once, before STUN has answered.
      if (before.join() !== this.#local().join()) this.#options.onMoved("address");
    }
  }

  /** If the list is another, or was never told. */
  #tell(): void {
    const list = this.#gather();
    if (this.#isTold && sameEndpoints(this.#list, list)) return;
    this.#list = list;
    this.#options.onChange(list);
    // The first time all peers learn them from the coordinator anyway.
    if (this.#isTold) this.#options.onMoved("mapping");
    this.#isTold = true;
  }

  #local(): string[] {
    return localEndpoints(this.#options.rtnl, this.#options).map(formatEndpoint).sort();
  }

  #gather(): AdvertisedEndpoint[] {
    const { rtnl, given, portMapped } = this.#options;
    const external = portMapped();
    return advertise({
      given,
      local: localEndpoints(rtnl, this.#options),
      portmap: external ? [external] : [],
      stun: [...this.#mapped.values()].flat(),
    });
  }

  /** Over both families at once; what one says is told soon even if the other stays silent. */
  async #askStun(signal: AbortSignal): Promise<void> {
    const { families, clock, log } = this.#options;
    try {
      const servers = await this.#servers();
      const asked = families.flatMap((family) => {
        const ofFamily = servers.filter(({ endpoint }) => familyOf(endpoint.ip) === family);
        if (ofFamily.length > 0) return [this.#askOver(family, ofFamily, signal)];
        this.#mapped.delete(family);
        return [];
      });
      const all = Promise.all(asked);
      const grace = () => clock.sleep(FAMILY_GRACE_MS, signal);
      if (asked.length > 1) {
        await Promise.race([all, Promise.race(asked).then(grace)]);
        this.#tell();
      }
      const answered = await all;
      if (answered.length === 0 || answered.includes(true)) return;
      log.warn("endpoint collection incomplete", { error: "no STUN server answers" });
    } catch (error) {
      if (signal.aborted) return;
      log.warn("endpoint collection incomplete", { error: errorText(error) });
    }
  }

  async #servers(): Promise<StunServer[]> {
    const { stunServers, families, rtnl } = this.#options;
    return stunServers.length === 0 ? [] : await resolveReachable(stunServers, families, rtnl);
  }

  /** Whether a server answered; when none did, what was known stands. */
  async #askOver(
    family: Family,
    servers: readonly StunServer[],
    signal: AbortSignal,
  ): Promise<boolean> {
    const options = { timeoutMs: STUN_TIMEOUT_MS, signal, firstOnly: true };
    const answers = await this.#options.stun.query(servers, options);
    if (answers.length > 0) this.#mapped.set(family, answers.map(({ mapped }) => mapped));
    return answers.length > 0;
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
