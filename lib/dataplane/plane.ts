/** What the daemon asks of a data plane; `fou.ts` does it in the kernel, `tun.ts` in user space. */
import type { Endpoint, Family, Ip } from "../addr.ts";
import type { Datagram, SendDatagram } from "../edges.ts";
import type { Signalling } from "../linux/mod.ts";
import type { NodeKey } from "../keys.ts";
import type { LinkCounters } from "../links/mod.ts";

export type DataPlaneKind = "fou" | "tun";

/** Of IPv4; outer packets of IPv6 always have one. `auto`: see `hasSafeChecksums`. */
export type EncapCsum = "auto" | "on" | "off";

/** One peer's link as the daemon wants it to be. */
export interface PeerLink {
  peer: NodeKey;
  /** This node's address in the overlay, and the peer's: a point-to-point pair. */
  localIp: Ip;
  peerIp: Ip;
  /** Where the peer's packets go to and must come from. */
  remote: Endpoint;
  /** The port that packets leave from and arrive at: an open {@link ExtraPort}'s, or the main one. */
  localPort?: number;
  /** GRE keys of packets from and to the peer; absent: no key on the wire. */
  keys?: { ikey: number; okey: number };
}

export interface LinkState {
  ifname: string;
  mtu: number;
}

/**
 * A UDP port of IPv4 besides the main one, for a path that has a NAT mapping of its own. Once it is
 * disposed, nothing is sent from there, and a link that uses it carries nothing.
 */
export interface ExtraPort extends Disposable {
  readonly port: number;
  /** A STUN or disco datagram. */
  readonly send: SendDatagram;
}

export interface AdoptedPath {
  remote: Endpoint;
  /** Absent: the main one. */
  extraPort?: ExtraPort;
}

export interface DataPlane extends AsyncDisposable {
  readonly kind: DataPlaneKind;
  /** Of outer packets: IPv4, and IPv6 where the kernel has it. */
  readonly families: readonly Family[];
  /**
   * Sends a STUN or disco datagram from the port that the data uses; one to an address of another
   * family is lost.
   */
  readonly send: SendDatagram;
  /** Opens a free port, for signalling until a link uses it too. Throws `SystemError`. */
  openPort(): ExtraPort;
  /** What the peer's link of an earlier run uses: its path may still work. */
  adopted(peer: NodeKey): AdoptedPath | undefined;
  /**
   * Makes the peer's link, or changes it in place; throws `GretunError`, then nothing changed. Where
   * a remote of the other family needs another kind of link, the old one is removed first, and the
   * new one has its name: packets are lost for a moment, and what others have set on the link is.
   */
  setLink(link: PeerLink): LinkState;
  /** This host's addresses or routes changed: puts right the links that name one of its addresses. */
  addressesChanged(): void;
  /** Removes the peer's link, if there is one. */
  removeLink(peer: NodeKey): void;
  /** Peers whose link was made and is there no more: somebody removed it. */
  missingLinks(): NodeKey[];
  /** Of every peer that has a link. */
  counters(): Map<NodeKey, LinkCounters>;
  /** Removes links of an earlier run whose peers are not in `peers`. */
  removeStrangers(peers: ReadonlySet<NodeKey>): void;
}

export interface DataPlaneOptions {
  /** What is no data. */
  signalling: Signalling;
  /** The one UDP port of signalling and data. */
  port: number;
  /** Interface names: `%d` stands for the lowest free number. */
  ifnamePattern: string;
  /** Whether outer UDP packets have a checksum; user space always makes one. */
  encapCsum: EncapCsum;
  /** Gets every STUN or disco datagram that arrives; `localPort` is set for an extra port. */
  onDatagram: (datagram: Datagram, localPort?: number) => void;
}
