/** Inner packets for tests of the data path, made slowly and by other code than it has. */
import { concatBytes, Writer } from "../lib/bytes.ts";
import { onesComplementSum } from "../lib/checksum.ts";

export interface TcpPacket {
  version: 4 | 6;
  /** Last byte of both addresses, and the source port. */
  flow: number;
  sequence: number;
  acknowledgement?: number;
  flags?: number;
  window?: number;
  urgent?: number;
  options?: Uint8Array;
  ipOptions?: Uint8Array;
  payload: Uint8Array;
  id?: number;
  tos?: number;
  ttl?: number;
  fragment?: number;
}

export const [FIN, SYN, RST, PSH, ACK, URG, ECE, CWR] = [1, 2, 4, 8, 16, 32, 64, 128] as const;
const NOTHING = new Uint8Array();

export function tcpPacket(packet: TcpPacket): Uint8Array<ArrayBuffer> {
  const { flow, sequence, acknowledgement = 7, flags = ACK, window = 500, urgent = 0 } = packet;
  const options = packet.options ?? NOTHING;
  const header = (checksum: number) =>
    new Writer("network").u16(1000 + flow).u16(80).u32(sequence).u32(acknowledgement)
      .u8((5 + options.length / 4) << 4).u8(flags).u16(window).u16(checksum).u16(urgent)
      .bytes(options).bytes(packet.payload).finish();
  return ipPacket(packet, 6, header(checksum(packet, 6, header(0))));
}

export function udpPacket(packet: Omit<TcpPacket, "sequence">): Uint8Array<ArrayBuffer> {
  const datagram = (checksum: number) =>
    new Writer("network").u16(1000 + packet.flow).u16(53).u16(8 + packet.payload.length)
      .u16(checksum).bytes(packet.payload).finish();
  return ipPacket(packet, 17, datagram(checksum(packet, 17, datagram(0)) || 0xffff));
}

type Ip = Omit<TcpPacket, "sequence">;

function addresses({ version, flow }: Ip): Uint8Array {
  const one = (last: number) =>
    version === 4
      ? Uint8Array.of(10, 0, last, flow)
      : concatBytes(Uint8Array.of(0xfd), new Uint8Array(13), Uint8Array.of(last, flow));
  return concatBytes(one(1), one(2));
}

function checksum(packet: Ip, protocol: number, l4: Uint8Array): number {
  const pseudo = new Writer("network").bytes(addresses(packet)).u32(l4.length).u32(protocol);
  return ~onesComplementSum(concatBytes(pseudo.finish(), l4)) & 0xffff;
}

function ipPacket(packet: Ip, protocol: number, l4: Uint8Array): Uint8Array<ArrayBuffer> {
  const { version, id = 1, tos = 0, ttl = 64, fragment = 0x4000, ipOptions = NOTHING } = packet;
  if (version === 6) {
    return new Writer("network").u32((0x60000000 | tos << 20) >>> 0).u16(l4.length).u8(protocol)
      .u8(ttl).bytes(addresses(packet)).bytes(l4).finish();
  }
  const header = (checksum: number) =>
    new Writer("network").u8(0x45 + ipOptions.length / 4).u8(tos)
      .u16(20 + ipOptions.length + l4.length).u16(id).u16(fragment).u8(ttl).u8(protocol)
      .u16(checksum).bytes(addresses(packet)).bytes(ipOptions).finish();
  return concatBytes(header(~onesComplementSum(header(0)) & 0xffff), l4) as Uint8Array<ArrayBuffer>;
}

/** Whether the IPv4 header's sum is right, and that of what is after the IP header. */
export function hasRightChecksums(packet: Uint8Array): boolean {
  const isIpv4 = packet[0]! >> 4 === 4;
  const length = isIpv4 ? (packet[0]! & 0xf) * 4 : 40;
  const l4 = packet.subarray(length);
  const protocol = packet[isIpv4 ? 9 : 6]!;
  const pseudo = new Writer("network").bytes(
    isIpv4 ? packet.subarray(12, 20) : packet.subarray(8, 40),
  )
    .u32(l4.length).u32(protocol).finish();
  const isRight = onesComplementSum(concatBytes(pseudo, l4)) === 0xffff;
  return isRight && (!isIpv4 || onesComplementSum(packet.subarray(0, length)) === 0xffff);
}

/** The same numbers for the same seed (mulberry32). */
export function seededRandom(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}

export function randomBytes(random: (below: number) => number, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random(256));
}
