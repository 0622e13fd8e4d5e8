/**
 * How packets of links travel: in the kernel (`kernel/`) or through this process (`user/`). What
 * `up`, `hub` and `spoke` ask of either.
 */
import type { Cidr, Endpoint, Family, Ip } from "../addr.ts";
import type { Clock, Datagram, Log, SendDatagram } from "../edges.ts";
import {
  type Drop,
  DROPS,
  type Encapsulation,
  type EngineFeatures,
  type EngineLink,
} from "../engine/mod.ts";
import type { Host } from "../host/mod.ts";
import type { DaemonRole, LinkAddress, LinkCounters } from "../links/mod.ts";
import type { Signalling, SockAddr } from "../linux/mod.ts";
import type { Access } from "../policy/access.ts";
import type { LinkKeys, PlaneKind } from "./kinds.ts";

/** Over IPv4; outer packets of IPv6 always have one. `auto`: see `hasSafeChecksums`. */
export type EncapCsum = "auto" | "on" | "off";

/** What may go through a link. */
export interface InnerLimits {
  /** Inner addresses that the far end may have; absent: all. */
  sources?: readonly Cidr[];
  /** Inner addresses that the far end may reach here; absent: all. */
  destinations?: readonly Cidr[];
}

/** A link as it is wanted. */
export interface WantedLink extends InnerLimits {
  /** Whom it leads to: a node key, the name of a hub's client, or that of a spoke's hub. */
  id: string;
  /** Where the far end's packets go to and must come from. */
  remote: Endpoint;
  /** The port that packets leave from and arrive at: an open {@link ExtraPort}'s, or the main one. */
  localPort?: number;
  /** None: whoever runs on the link gives it some. */
  addresses: readonly LinkAddress[];
  /** Networks behind the far end. */
  routes: readonly Cidr[];
  /** Absent: no key on the wire. */
  keys?: LinkKeys;
  /** Of which the keys are; who adopts the link is told. */
  session?: string;
  /** A program's socket takes what goes to `remote`, as a relay's does: no kernel looks inside. */
  meetsSocket?: boolean;
  /** The largest packet outside that gets to `remote`, where that is less than the route says. */
  pathMtu?: number;
}

export interface LinkState {
  ifname: string;
  mtu: number;
}

/** A link that an earlier run left behind. */
export interface AdoptedLink extends LinkState {
  id: string;
  /** Its path may still work. */
  remote: Endpoint;
  /** Of packets outside, by the link's MTU. */
  pathMtu: number;
  /** As in {@link WantedLink}. */
  session?: string;
  /** Absent: the main one. */
  extraPort?: ExtraPort;
}

/**
 * A UDP port of IPv4 besides the main one, for a path that has a NAT mapping of its own. Once it is
 * disposed, nothing is sent from there, and a link that uses it carries nothing.
 */
export interface ExtraPort extends Disposable {
  readonly port: number;
  readonly send: SendDatagram;
}

export interface DataPlane extends AsyncDisposable {
  readonly kind: PlaneKind;
  /** The one UDP port of signalling and data. */
  readonly port: number;
  /** Of outer packets: those that the kernel has. */
  readonly families: readonly Family[];
  /**
   * Sends a datagram of signalling from the port that the data uses; one to an address of another
   * family is lost.
   */
  readonly send: SendDatagram;
  /** Opens a free port, for signalling until a link uses it too. Throws `SystemError`. */
  openPort(): ExtraPort;
  /**
   * What the link's far end may open here, whether or not there is the link; absent: everything.
   * Throws `GretunError` where that cannot be kept: then there must be no such link.
   */
  allow(id: string, access: Access | undefined): void;
  /** Links of an earlier run that were neither set nor removed in this one. */
  adopted(): AdoptedLink[];
  /** Says what an adopted link is for, before it is set: until then it is for all. */
  confine(id: string, limits: InnerLimits): void;
  /**
   * Makes the link, or changes it in place; throws `GretunError`, then nothing changed. Where a
   * remote of the other family needs another kind of link, the old one is removed first, and the
   * new one has its name: packets are lost for a moment, and what others have set on the link is.
   */
  setLink(link: WantedLink): LinkState;
  /** Does nothing where there is none. */
  removeLink(id: string): void;
  /** Of packets outside to the link's remote, as routes have it; undefined without one. */
  routeMtu(id: string): number | undefined;
  /** Whose link was made and is there no more: somebody removed it. */
  missingLinks(): string[];
  /** Of every link. */
  counters(): Map<string, LinkCounters>;
  /**
   * Links, addresses or routes of this host changed: puts right what names one of its addresses, and
   * what others changed of our links.
   */
  networkChanged(): void;
  /** {@link PlaneOptions.lookalikes} may be others now. */
  refresh(): void;
  /** Packets, by reason. */
  refused(): Map<PlaneRefusal, number>;
  /** Undefined, or absent, where packets do not pass through threads of this process. */
  threads?(): PlaneThreads | undefined;
  /** It has something to do that holds the program up, and now is a good moment for it. */
  whileWaiting?(): void;
}

/** Of the threads that carry packets. */
export interface PlaneThreads {
  features: EngineFeatures;
  drops: ReadonlyMap<PlaneDrop, number>;
}

/** What a plane is given of the world. */
export interface PlaneWorld {
  host: Host;
  clock: Clock;
  log: Log;
}

/**
 * Why a packet was not taken: "wrong-address", of the far end's outside; "wrong-inner-address", of
 * its inside; "out-of-reach", for an address that it may not reach; "against-policy", that would open
 * what the far end may not; "router-message", that tells of other routers; "not-for-peer", of ours to what is not the far end's; "own-tunnel", an outer packet
 * that would go into a link of ours.
 */
export const PLANE_REFUSALS = [
  ...["not-ip", "malformed", "wrong-address", "wrong-inner-address"] as const,
  ...["out-of-reach", "against-policy", "router-message", "not-for-peer", "own-tunnel"] as const,
  ...["replayed", "bad-tag"] as const,
] as const;
export type PlaneRefusal = typeof PLANE_REFUSALS[number];

/** Why a packet that was not refused was not carried. */
export type PlaneDrop = Exclude<Drop, PlaneRefusal>;
export const PLANE_DROPS: readonly PlaneDrop[] = DROPS.filter((reason) => !isRefusal(reason));

function isRefusal(reason: Drop | PlaneRefusal): reason is PlaneRefusal {
  return PLANE_REFUSALS.some((refusal) => refusal === reason);
}

/** Signalling that is known by its form only as long as nobody looks closely. */
export interface Lookalikes {
  /** Lengths of payloads that begin as IPv4 packets of more than that do. */
  lengths: readonly number[];
  /** Payloads whose first bytes tell what they are, whatever they look like. */
  tokens: () => readonly Uint8Array[];
}

export interface PlaneOptions {
  /** One daemon a port and network namespace has links of its mark. */
  role: DaemonRole;
  /** Of signalling and data; 0, in user space: any free one. */
  port: number;
  /** The flag by which users choose the port. */
  portFlag: string;
  /** The address of this host that packets have; absent: any. */
  bind?: Ip;
  /** Interface names: `%d` stands for the lowest free number. */
  ifnamePattern: string;
  /** Of the links; absent: what the way to the far end leaves. */
  mtu?: number;
  encapCsum: EncapCsum;
  /** In user space: datagrams that are too large for the way may be cut up. */
  allowFragments?: boolean;
  /** What is no data; none: everything is. */
  signalling?: Signalling;
  lookalikes?: Lookalikes;
  /** Gets signalling that arrives; `localPort` is set for an extra port. */
  onDatagram: (datagram: Datagram, localPort?: number) => void;
  /**
   * Asked when the plane is disposed: whether links of the kernel, and the rules that guard them,
   * stay for the next run to adopt. Never, unless told.
   */
  keepsLinks?: () => boolean;
  /** Something that nobody waits for failed. */
  onFault: (what: string, error: unknown) => void;
}

/** What user-space packets look like on the wire, and what the threads that carry them tell. */
export interface DataCodec {
  readonly encapsulation: Encapsulation;
  /** Own identifier of jtunnel. */
  readonly ownId?: Uint8Array;
  /** Signalling has sockets of its own: a flood of it costs the data nothing. */
  readonly signalsApart?: true;
  /** What a link needs besides what is wanted. */
  extras?(id: string): Pick<EngineLink, "farId" | "seal">;
  /** Called by the codec when {@link DataCodec.extras} has other news. */
  onChanged?: (id: string) => void;
  /** Packets from the link's far end were carried since this was called last. */
  heard?(id: string): void;
  /** A sealed packet was taken: the session's first, or one from elsewhere than the link's remote. */
  onSession?(session: Uint8Array, source: SockAddr): void;
  /** What is added to an inner packet over IPv4, headers of IP and UDP and all. */
  overheadBytes(link: Pick<WantedLink, "keys">): number;
  /** Throws `GretunError` for a link whose packets could be those of another one. */
  setLink?(link: WantedLink): void;
  removeLink?(id: string): void;
  /**
   * Whose packet it is that threads know no link for, and the packet; undefined: why it is not taken
   * was told already. Absent: there are no such packets.
   */
  decode?(bytes: Uint8Array, source: SockAddr): { id: string; inner: Uint8Array } | undefined;
}
