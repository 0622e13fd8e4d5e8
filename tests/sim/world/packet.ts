/** IP packets: as values on the wires of the simulation, as bytes inside of tunnels. */
import { type Endpoint, familyOf, type Ip, ipBytes, ipFromBytes } from "../../../lib/addr.ts";
import { Reader, Writer } from "../../../lib/bytes.ts";

export interface UdpPacket {
  readonly kind: "udp";
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly ttl: number;
  readonly bytes: Uint8Array;
}

/** ICMP echo: a ping or its answer. */
export interface EchoPacket {
  readonly kind: "echo";
  readonly from: { readonly ip: Ip };
  readonly to: { readonly ip: Ip };
  readonly ttl: number;
  readonly isReply: boolean;
  readonly id: number;
  readonly size: number;
}

export type Packet = UdpPacket | EchoPacket;

const IPPROTO = { ICMP: 1, UDP: 17, ICMPV6: 58 };
const UDP_HEADER = 8;
const ECHO_HEADER = 8;

const headerLength = (ip: Ip) => familyOf(ip) === 4 ? 20 : 40;

/** Of the whole IP packet. */
export function lengthOf(packet: Packet): number {
  const payload = packet.kind === "udp"
    ? UDP_HEADER + packet.bytes.length
    : ECHO_HEADER + packet.size;
  return headerLength(packet.to.ip) + payload;
}

/** Without checksums, which nobody here looks at. */
export function encodeIp(packet: Packet): Uint8Array<ArrayBuffer> {
  const { from, to, ttl } = packet;
  const isIpv4 = familyOf(to.ip) === 4;
  const length = lengthOf(packet);
  const protocol = packet.kind === "udp" ? IPPROTO.UDP : isIpv4 ? IPPROTO.ICMP : IPPROTO.ICMPV6;
  const writer = new Writer("network", length);
  if (isIpv4) writer.u8(0x45).u8(0).u16(length).u32(0).u8(ttl).u8(protocol).u16(0);
  else writer.u32(0x60000000).u16(length - 40).u8(protocol).u8(ttl);
  writer.bytes(ipBytes(from.ip)).bytes(ipBytes(to.ip));
  if (packet.kind === "udp") {
    writer.u16(packet.from.port).u16(packet.to.port).u16(UDP_HEADER + packet.bytes.length).u16(0);
    return writer.bytes(packet.bytes).finish();
  }
  const type = isIpv4 ? (packet.isReply ? 0 : 8) : packet.isReply ? 129 : 128;
  return writer.u8(type).u8(0).u16(0).u32(packet.id).zeros(packet.size).finish();
}

/** Undefined for what is none of the above. */
export function decodeIp(bytes: Uint8Array): Packet | undefined {
  const isIpv4 = (bytes[0] ?? 0) >> 4 === 4;
  if (bytes.length < (isIpv4 ? 20 : 40) + UDP_HEADER) return undefined;
  const reader = new Reader(bytes, "network");
  const [protocol, ttl] = isIpv4 ? [bytes[9]!, bytes[8]!] : [bytes[6]!, bytes[7]!];
  reader.skip(isIpv4 ? 12 : 8);
  const [from, to] = [0, 1].map(() => ipFromBytes(reader.bytes(isIpv4 ? 4 : 16)));
  if (protocol === IPPROTO.UDP) {
    const [source, destination] = [reader.u16(), reader.u16()];
    const payload = reader.skip(4).bytes();
    return {
      kind: "udp",
      from: { ip: from!, port: source },
      to: { ip: to!, port: destination },
      ttl,
      bytes: payload,
    };
  }
  const type = reader.u8();
  const id = reader.skip(3).u32();
  const isReply = type === (isIpv4 ? 0 : 129);
  return {
    kind: "echo",
    from: { ip: from! },
    to: { ip: to! },
    ttl,
    isReply,
    id,
    size: reader.left,
  };
}
