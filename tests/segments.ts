/** Packets cut and joined as the threads of the data path do it, and such packets. */
import { concatBytes } from "../lib/bytes.ts";
import { onesComplementSum } from "../lib/checksum.ts";
import { Arena } from "../lib/engine/arena.ts";
import { type Joined, Joiner } from "../lib/engine/join.ts";
import { GSO, NEEDS_CSUM, VNET_HEADER } from "../lib/engine/packet.ts";
import { Cutter } from "../lib/engine/segment.ts";
import { plainSum } from "../lib/engine/sum.ts";
import { ACK, randomBytes, seededRandom, type TcpPacket } from "./ip_packets.ts";

const HEADERS = 240;

/** Packets in an arena, as the workers have them. */
export class Bench {
  readonly arena = new Arena(new ArrayBuffer(1 << 20));
  readonly sum = plainSum(this.arena);
  readonly cutter = new Cutter(this.arena, this.sum);
  readonly emitted: { device: number; vnet: Uint8Array; packet: Uint8Array }[] = [];
  readonly joiner = new Joiner(this.arena, this.sum, (packet) => this.#emit(packet));
  readonly #vnetAt = this.arena.room(VNET_HEADER);
  readonly #headersAt = this.arena.room(HEADERS);
  readonly #roomAt = this.arena.room(400_000);
  #filled = 0;

  /** `odd`: it begins at an odd address, as a datagram may after another. */
  put(bytes: Uint8Array, odd = 0): number {
    const at = this.#roomAt + this.#filled + odd;
    this.arena.bytes.set(bytes, at);
    this.#filled += (bytes.length + 64) & ~1;
    return at;
  }

  join(packets: readonly { device: number; packet: Uint8Array }[], odd = 0, joinsUdp = true) {
    this.emitted.length = 0;
    this.#filled = 0;
    for (const { device, packet } of packets) {
      this.joiner.take(device, this.put(packet, odd), packet.length, joinsUdp);
    }
    this.joiner.flush();
    return this.emitted.slice();
  }

  #emit({ device, count, at, length, vnet }: Joined): void {
    const { bytes } = this.arena;
    const pieces = Array.from(
      { length: count },
      (_, i) => bytes.slice(at[i]!, at[i]! + length[i]!),
    );
    const header = bytes.slice(vnet, vnet + VNET_HEADER);
    this.emitted.push({ device, vnet: header, packet: concatBytes(...pieces) });
  }

  /** Undefined for what is refused. */
  cut(vnet: Uint8Array, packet: Uint8Array): Uint8Array[] | undefined {
    this.#filled = 0;
    if (vnet[1] === GSO.none) return [packet];
    this.arena.bytes.set(vnet, this.#vnetAt);
    const { cutter } = this;
    if (!cutter.begin(this.#vnetAt, this.put(packet), packet.length)) return undefined;
    return Array.from({ length: cutter.count }, (_, k) => {
      cutter.writeHeaders(k, this.#headersAt);
      const at = cutter.payloadAt(k);
      return concatBytes(
        this.arena.bytes.slice(this.#headersAt, this.#headersAt + cutter.headerLength),
        this.arena.bytes.slice(at, at + cutter.payloadLength(k)),
      );
    });
  }
}

export interface SuperPacket {
  vnet: Uint8Array;
  packet: Uint8Array;
}

/** As the kernel hands it over: with the pseudo header's sum where the checksum goes. */
export function superPacket(
  bytes: Uint8Array,
  { type, size }: { type: number; size: number },
): SuperPacket {
  const packet = bytes.slice();
  const isIpv4 = packet[0]! >> 4 === 4;
  const l4 = isIpv4 ? (packet[0]! & 0xf) * 4 : 40;
  const isUdp = type === GSO.udp;
  const offset = isUdp ? 6 : 16;
  const pseudo = concatBytes(
    isIpv4 ? packet.subarray(12, 20) : packet.subarray(8, 40),
    Uint8Array.of(0, isUdp ? 17 : 6, (packet.length - l4) >> 8, (packet.length - l4) & 0xff),
  );
  const sum = onesComplementSum(pseudo);
  packet.set([sum >> 8, sum & 0xff], l4 + offset);
  const headers = l4 + (isUdp ? 8 : (packet[l4 + 12]! >> 4) * 4);
  const vnet = new Uint8Array(
    new Uint16Array([NEEDS_CSUM | type << 8, headers, size, l4, offset]).buffer,
  );
  return { vnet, packet };
}

export function tcpType(version: 4 | 6, ecn: boolean): number {
  return (version === 4 ? GSO.tcp4 : GSO.tcp6) | (ecn ? GSO.ecn : 0);
}

export type Random = ReturnType<typeof seededRandom>;

export function randomTcp(random: Random): TcpPacket {
  const payload = randomBytes(random, 1 + random(random(10) === 0 ? 60_000 : 4000));
  return {
    version: random(2) === 0 ? 4 : 6,
    flow: random(200),
    sequence: random(3) === 0 ? 2 ** 32 - random(3000) - 1 : random(2 ** 32),
    acknowledgement: random(2 ** 32),
    flags: ACK,
    window: random(65_536),
    options: randomBytes(random, 4 * random(11)),
    payload,
    id: random(65_536),
    tos: random(256),
    ttl: 1 + random(255),
    fragment: random(2) === 0 ? 0 : 0x4000,
  };
}

/** Addresses, protocol and ports, so that packets of one flow can be looked at alone. */
export function flowOf({ device, packet }: { device: number; packet: Uint8Array }): string {
  const isIpv4 = packet[0]! >> 4 === 4;
  const addresses = isIpv4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  const ports = packet.subarray(isIpv4 ? (packet[0]! & 0xf) * 4 : 40).subarray(0, 4);
  return `${device} ${packet[isIpv4 ? 9 : 6]} ${addresses} ${ports}`;
}
