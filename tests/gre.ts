/**
 * GRE headers as the data planes have them (RFC 2784, RFC 2890), the slow way: version 0, at most a
 * key.
 *
 *     0-1  flags (K = 0x2000) and version (low three bits, 0)
 *     2-3  protocol type (0x0800 IPv4, 0x86dd IPv6)
 *     4-7  key, where K is set
 */
import { Reader, Writer } from "../lib/bytes.ts";

const GRE_KEY = 0x2000;
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;

export interface GrePacket {
  key?: number;
  /** The inner IP packet, a view. */
  inner: Uint8Array;
}

/** GRE header and inner IP packet in one datagram; undefined when the packet is not IP. */
export function encodeGre(inner: Uint8Array, key?: number): Uint8Array<ArrayBuffer> | undefined {
  const protocol = protocolOf(inner);
  if (protocol === undefined) return undefined;
  const writer = new Writer("network", inner.length + 8);
  writer.u16(key === undefined ? 0 : GRE_KEY).u16(protocol);
  if (key !== undefined) writer.u32(key);
  return writer.bytes(inner).finish();
}

/** Undefined for what no node of ours sends: other versions, unknown flags, no IP inside. */
export function decodeGre(bytes: Uint8Array): GrePacket | undefined {
  if (bytes.length < 4) return undefined;
  const reader = new Reader(bytes, "network");
  const flags = reader.u16();
  const protocol = reader.u16();
  if ((flags & ~GRE_KEY) !== 0) return undefined;
  if ((flags & GRE_KEY) !== 0 && reader.left < 4) return undefined;
  const key = (flags & GRE_KEY) !== 0 ? { key: reader.u32() } : {};
  const inner = reader.bytes();
  return protocolOf(inner) === protocol ? { ...key, inner } : undefined;
}

function protocolOf(inner: Uint8Array): number | undefined {
  const version = (inner[0] ?? 0) >> 4;
  if (version === 4 && inner.length >= 20) return ETH_P_IP;
  if (version === 6 && inner.length >= 40) return ETH_P_IPV6;
  return undefined;
}
