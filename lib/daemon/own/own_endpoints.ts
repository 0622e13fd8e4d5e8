/** Keeps the list of this node's own endpoints fresh, from all that tells of one. */
import {
  type Cidr,
  type Endpoint,
  equalEndpoints,
  type Family,
  familyOf,
  formatEndpoint,
} from "../../addr.ts";
import type { AdvertisedEndpoint } from "../../coord/api.ts";
import type { Clock, Log } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import type { Lookup } from "../../lookup.ts";
import type { StunClient, StunServer } from "../../stun/mod.ts";
import {
  advertise,
  type HostNetwork,
  type InterfaceChoice,
  localEndpoints,
  sameEndpoints,
} from "./endpoints.ts";
import { resolveReachable } from "./reachable.ts";

/** Well under the 30 s after which many NATs forget a mapping (RFC 4787 section 4.3). */
const STUN_INTERVAL_MS = 20_000;
const STUN_TIMEOUT_MS = 3_000;
/** While none answers there is no haste: two requests in a look, not six. */
const SILENT_PAUSE_MS = 1_500;
/** Between two questions to STUN that somebody asks for. */
const ASK_GAP_MS = 250;
/** A network that was away is noticed soon after it is back: in a fifth of the time that it was away. */
const SILENT_INTERVAL_MS = 500;
const SILENT_PART = 1 / 5;
/**
 * Between the first looks elsewhere, and between later ones: Linux forgets one question and its
 * answer after 30 s, but after 120 s if an earlier run of this node had asked shortly before.
 */
const ELSEWHERE_GAPS_MS = [0, 31_000, 125_000] as const;
const MAX_ELSEWHERE = 4;
/** For so long after the answer over one family, that over the other one is waited for. */
const FAMILY_GRACE_MS = 100;
/** Several addresses change at once when an interface comes up. */
export const SETTLE_MS = 200;

export interface OwnEndpointsOptions {
  rtnl: HostNetwork;
  port: number;
  /** Of addresses that the data plane can use. */
  families: readonly Family[];
  /** Addresses in there are tunnels'. Unknown before this node has registered. */
  overlay: () => Cidr | undefined;
  interfaces: InterfaceChoice;
  stun: Pick<StunClient, "query">;
  stunServers: () => readonly string[];
  /** The system's unless told. */
  lookup?: Lookup;
  /** What the user says, for a port that was forwarded by hand. */
  given: readonly Endpoint[];
  /** What a router has mapped for us, now. */
  portMapped: () => Endpoint | undefined;
  clock: Clock;
  log: Log;
  /** The list is another. */
  onChange: (endpoints: readonly AdvertisedEndpoint[]) => void;
  /**
   * Peers should hear from us. "more": there are more endpoints; else an address of this host or a
   * NAT's mapping is another: connections that there were may be dead.
   */
  onMoved: (what: "address" | "mapping" | "more") => void;
  /** STUN answers as before, after it had been silent since then: the network may have been away. */
  onBack: (silentSinceMs: number) => void;
  /** STUN was asked; it stays silent, or does so no more. */
  onSilence?: () => void;
}

export class OwnEndpoints {
  readonly #options: OwnEndpointsOptions;
  #list: AdvertisedEndpoint[];
  /** This host's addresses when peers last heard of them. */
  #knownLocal: string;
  /** The list was told once. */
  #isTold = false;
  readonly #firstTold = Promise.withResolvers<void>();
  /** What STUN servers see of us, over each family. */
  readonly #mapped = new Map<Family, Endpoint[]>();
  /** Servers of IPv4 that are asked by {@link lookElsewhere} alone. */
  #elsewhere: readonly StunServer[] = [];
  /** What they saw, the last first. */
  #seenElsewhere: Endpoint[] = [];
  #looksElsewhere = 0;
  #elsewhereMs = -Infinity;
  /** Ends the pause between two looks. */
  #wake = new AbortController();
  /** Something changed that those looks have not taken in yet. */
  #hasNews = false;
  /** Somebody doubts that what STUN said still holds. */
  #isDoubted = false;
  #askedMs = -Infinity;
  /** Since when no STUN server answers. */
  #silentSinceMs: number | undefined;

  constructor(options: OwnEndpointsOptions) {
    this.#options = options;
    this.#list = this.#gather();
    this.#knownLocal = this.#local().join();
  }

  get list(): readonly AdvertisedEndpoint[] {
    return this.#list;
  }

  /** The list as the coordinator is told; before the first look with what was `seen` meanwhile. */
  told(seen: readonly Endpoint[]): AdvertisedEndpoint[] {
    return this.#isTold ? [...this.#list] : this.#gather(seen);
  }

  /** How one sees this node over IPv4 to whom it has not sent before. */
  get seenByNewcomers(): Endpoint | undefined {
    return this.#seenElsewhere[0] ?? this.#mapped.get(4)?.[0];
  }

  /** Since when no STUN server answers, in monotonic ms. */
  get silentSinceMs(): number | undefined {
    return this.#silentSinceMs;
  }

  /** Looks again soon. */
  look(): void {
    this.#hasNews = true;
    this.#wake.abort();
  }

  /** Asks STUN now: a NAT may have mapped us anew. */
  doubt(): void {
    this.#isDoubted = true;
    this.#wake.abort();
  }

  /** Resolved when the list is more than what was known at the start. */
  get firstTold(): Promise<void> {
    return this.#firstTold.promise;
  }

  /** Whether it is. */
  get isTold(): boolean {
    return this.#isTold;
  }

  /**
   * Asks STUN where this node has not sent to lately. A Linux router that takes a peer's early
   * datagram for one to itself gives the host behind it another port towards that peer, and then
   * towards everybody new; servers that the host has sent to before see the old one.
   */
  async lookElsewhere(signal: AbortSignal): Promise<void> {
    const { clock, stun } = this.#options;
    const servers = this.#elsewhere;
    const gapMs = ELSEWHERE_GAPS_MS[Math.min(this.#looksElsewhere, ELSEWHERE_GAPS_MS.length - 1)]!;
    if (servers.length === 0 || clock.nowMs() - this.#elsewhereMs < gapMs) return;
    this.#looksElsewhere++;
    this.#elsewhereMs = clock.nowMs();
    const options = { timeoutMs: STUN_TIMEOUT_MS, signal, firstOnly: true };
    const [answer] = await stun.query(servers, options);
    if (!answer) return;
    const others = this.#seenElsewhere.filter((known) => !equalEndpoints(known, answer.mapped));
    this.#seenElsewhere = [answer.mapped, ...others].slice(0, MAX_ELSEWHERE);
    if (this.#isTold) this.#tell();
  }

  /** Asks STUN at once, each 20 s and after {@link look}; until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sinceMs = this.#silentSinceMs;
      await this.#askStun(signal);
      if (sinceMs !== undefined) this.#options.onSilence?.();
      const hasTold = this.#tell();
      const isBack = sinceMs !== undefined && this.#silentSinceMs === undefined;
      if (isBack && !hasTold) this.#options.onBack(sinceMs);
      this.#lookAtAddresses(); // which may have changed while STUN was asked
      await this.#pause(signal);
      this.#lookAtAddresses();
    }
  }

  /** Peers hear from a new address at once, before STUN has answered. */
  #lookAtAddresses(): void {
    const local = this.#local().join();
    if (local === this.#knownLocal) return;
    this.#knownLocal = local;
    this.#options.onMoved("address");
  }

  /** If the list is another, or was never told; whether it did. */
  #tell(): boolean {
    const before = this.#list;
    const list = this.#gather();
    if (this.#isTold && sameEndpoints(before, list)) return false;
    this.#list = list;
    this.#options.onChange(list);
    // The first time all peers learn them from the coordinator anyway.
    if (this.#isTold) this.#options.onMoved(hasAllMappings(list, before) ? "more" : "mapping");
    this.#isTold = true;
    this.#firstTold.resolve();
    return true;
  }

  #local(): string[] {
    return this.#localEndpoints().map(formatEndpoint).sort();
  }

  #localEndpoints(): Endpoint[] {
    const { rtnl, port, families, overlay, interfaces } = this.#options;
    return localEndpoints(rtnl, { port, families, overlay: overlay(), interfaces });
  }

  #gather(seen: readonly Endpoint[] = []): AdvertisedEndpoint[] {
    const { given, portMapped } = this.#options;
    const external = portMapped();
    return advertise({
      given,
      local: this.#localEndpoints(),
      portmap: external ? [external] : [],
      stun: [...this.#mapped.values(), this.#seenElsewhere, seen].flat(),
    });
  }

  /** Over both families at once; what one says is told soon even if the other stays silent. */
  async #askStun(signal: AbortSignal): Promise<void> {
    const { families, clock } = this.#options;
    this.#isDoubted = false;
    this.#askedMs = clock.nowMs();
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
      if (answered.length === 0 || answered.includes(true)) this.#silentSinceMs = undefined;
      else this.#stunIsSilent("no STUN server answers");
    } catch (error) {
      if (!signal.aborted) this.#stunIsSilent(errorText(error));
    }
  }

  #stunIsSilent(error: string): void {
    const { clock, log } = this.#options;
    if (this.#silentSinceMs !== undefined) return;
    this.#silentSinceMs = clock.nowMs();
    log.warn("endpoint collection incomplete", { error });
  }

  async #servers(): Promise<StunServer[]> {
    const { stunServers, families, rtnl, lookup } = this.#options;
    const names = stunServers();
    return names.length === 0 ? [] : await resolveReachable(names, families, rtnl, lookup);
  }

  /** Whether a server answered; when none did, what was known stands. */
  async #askOver(
    family: Family,
    servers: readonly StunServer[],
    signal: AbortSignal,
  ): Promise<boolean> {
    const options = {
      ...{ timeoutMs: STUN_TIMEOUT_MS, signal, firstOnly: true },
      ...(this.#silentSinceMs === undefined ? {} : { firstPauseMs: SILENT_PAUSE_MS }),
    };
    const isFirst = ({ endpoint: { ip } }: StunServer, i: number) =>
      servers.findIndex(({ endpoint }) => endpoint.ip === ip) === i;
    const asked = servers.filter(isFirst);
    const answers = await this.#options.stun.query(asked, options);
    if (answers.length === 0) return false;
    const mapped = answers.map(({ mapped }) => mapped);
    const before = this.#mapped.get(family) ?? [];
    this.#mapped.set(family, mapped);
    if (family === 6) return true;
    const isAnother = before.some((old) => !mapped.some((now) => equalEndpoints(old, now)));
    if (isAnother) this.#seenElsewhere = [];
    const others = answers.flatMap(({ server, other }) =>
      other ? [{ name: server.name, endpoint: other }] : []
    );
    this.#elsewhere = [...servers.filter((server) => !asked.includes(server)), ...others];
    return true;
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    this.#wake = new AbortController();
    const either = AbortSignal.any([this.#wake.signal, signal]);
    if (!this.#hasNews && !this.#isDoubted) {
      await clock.sleep(this.#intervalMs(), either).catch(() => {});
    }
    const gapMs = this.#askedMs + ASK_GAP_MS - clock.nowMs();
    if (this.#isDoubted && gapMs > 0) await clock.sleep(gapMs, signal).catch(() => {});
    if (!this.#hasNews) return;
    await clock.sleep(SETTLE_MS, signal).catch(() => {});
    this.#hasNews = false;
  }

  #intervalMs(): number {
    if (this.#silentSinceMs === undefined) return STUN_INTERVAL_MS;
    const silentMs = this.#options.clock.nowMs() - this.#silentSinceMs;
    return Math.min(Math.max(SILENT_INTERVAL_MS, silentMs * SILENT_PART), STUN_INTERVAL_MS);
  }
}

/** Whether all that STUN servers saw of us before is still there. */
function hasAllMappings(
  list: readonly AdvertisedEndpoint[],
  before: readonly AdvertisedEndpoint[],
): boolean {
  const now = new Set(list.map(({ endpoint }) => formatEndpoint(endpoint)));
  return before.every(({ endpoint, source }) =>
    source !== "stun" || now.has(formatEndpoint(endpoint))
  );
}
