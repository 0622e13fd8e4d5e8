/** What a tunnel adds to each inner packet, to the byte. */
import { outerFamily, type TunnelEncap, type TunnelKind } from "../netlink.ts";

const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const UDP_BYTES = 8;
/** draft-ietf-intarea-gue section 3.1, without options. */
const GUE_BYTES = 4;
/** RFC 2784 section 2.1. */
const GRE_BYTES = 4;
/** Key and sequence number (RFC 2890 section 2), checksum with its reserved half (RFC 2784). */
const GRE_OPTION_BYTES = 4;
const ETHERNET_BYTES = 14;
/** RFC 2473 section 5.1: destination options header with the tunnel encapsulation limit. */
const ENCAP_LIMIT_BYTES = 8;

/** Of packets that go out. */
export interface OverheadOptions {
  kind: TunnelKind;
  encap?: TunnelEncap["type"];
  key?: boolean;
  csum?: boolean;
  seq?: boolean;
  encapLimit?: boolean;
}

/** Bytes between the MTU of the path and that of the tunnel; GRE options count for GRE only. */
export function overheadBytes(options: OverheadOptions): number {
  const { kind, encap, encapLimit } = options;
  return (outerFamily(kind) === 4 ? IPV4_BYTES : IPV6_BYTES) +
    (encapLimit ? ENCAP_LIMIT_BYTES : 0) +
    (encap ? UDP_BYTES : 0) + (encap === "gue" ? GUE_BYTES : 0) +
    (isGre(kind) ? greBytes(options) : 0) +
    (carriesFrames(kind) ? ETHERNET_BYTES : 0);
}

function greBytes({ key, csum, seq }: OverheadOptions): number {
  return GRE_BYTES + [key, csum, seq].filter((option) => option).length * GRE_OPTION_BYTES;
}

/** Whether the kind has keys, checksums and sequence numbers. */
export function isGre(kind: TunnelKind): boolean {
  return kind.includes("gre");
}

/** Ethernet frames instead of IP packets. */
export function carriesFrames(kind: TunnelKind): boolean {
  return kind.endsWith("tap");
}
