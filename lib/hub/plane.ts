/** What hub and spoke ask of a data plane: `kernel_plane.ts` and `tun_plane.ts`. */
import type { Cidr, Endpoint, Ip } from "../addr.ts";
import type { Datagram } from "../edges.ts";
import type { EncapCsum, LinkState } from "../dataplane/mod.ts";
import type { LinkCounters } from "../links/mod.ts";
import type { SockAddr } from "../linux/mod.ts";
import type { Refusal } from "./protocol/gretun/auth.ts";

/** As on the command line. */
export type PlaneKind = "gre-fou" | "ipip-fou" | "tun";

/** A link as it is wanted. Links are told apart by name: the client's, or the hub's on a spoke. */
export interface HubLink {
  name: string;
  endpoint: Endpoint;
  /** This end's and the far end's inner address; none: whoever runs on the link gives it some. */
  local?: Ip;
  peer?: Ip;
  /** Networks behind the far end. */
  routes: readonly Cidr[];
  /** GRE keys of packets from and to the far end. */
  keys?: { ikey: number; okey: number };
  /** Inner sources that the far end may use; absent: all. */
  sources?: readonly Cidr[];
}

export interface PlaneOptions {
  owner: "hub" | "spoke";
  port: number;
  bind?: Ip;
  ifnamePattern: string;
  /** Of the links; absent: what the way to the far end leaves. */
  mtu?: number;
  encapCsum: EncapCsum;
  /** What is not data. */
  onSignal: (datagram: Datagram) => void;
  onRefused: (reason: Refusal) => void;
  /** Something that nobody waits for failed. */
  onFault: (what: string, error: unknown) => void;
}

/** Datagrams in bulk, for encapsulations that keep state of their own. */
export interface DataCodec {
  readonly overheadBytes: number;
  /** What goes to the link's endpoint; undefined: nothing. */
  encode(name: string, inner: Uint8Array): Uint8Array | undefined;
  /** Whose packet it is, and the packet; undefined when it was refused or was no packet. */
  decode(bytes: Uint8Array, source: SockAddr): { name: string; inner: Uint8Array } | undefined;
}

export interface HubPlane extends AsyncDisposable {
  readonly kind: PlaneKind;
  /** The UDP port. */
  readonly port: number;
  /** Sends what is not data, from the port that data uses. */
  send(bytes: Uint8Array, to: Endpoint): void;
  /** Makes the link, or changes it in place; throws `GretunError`, then nothing changed. */
  setLink(link: HubLink): LinkState;
  removeLink(name: string): void;
  /** What authorised clients are known by has changed. */
  refresh(): void;
  /** Links of ours that somebody else removed. */
  missingLinks(): string[];
  counters(): Map<string, LinkCounters>;
  /** Links that an earlier run left behind and that work. */
  adopted(): { name: string; endpoint: Endpoint; ifname: string; mtu: number }[];
}
