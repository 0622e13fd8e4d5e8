import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseIp } from "../../../lib/addr.ts";
import { concatBytes, fromHex, toHex, Writer } from "../../../lib/bytes.ts";
import { decodeGre, encodeGre } from "../../gre.ts";
import { Arena } from "../../../lib/engine/arena.ts";
import { HeaderReader, HeaderWriter } from "../../../lib/engine/encapsulation.ts";
import type { LinkSpec } from "../../../lib/engine/messages.ts";
import { WordTable } from "../../../lib/engine/tables.ts";
import { sockAddrOf } from "../../../lib/linux/mod.ts";
import { seededRandom, tcpPacket, udpPacket } from "../../ip_packets.ts";

Deno.test("WordTable finds what was put in, and nothing else", () => {
  const random = seededRandom(1);
  const keys = Array.from({ length: 500 }, () => Int32Array.from({ length: 5 }, () => random(3)));
  const table = new WordTable(keys.length);
  const expected = new Map<string, number>();
  for (const [i, key] of keys.entries()) {
    table.set(key, i);
    if (!expected.has(key.join())) expected.set(key.join(), i);
  }
  for (let i = 0; i < 2000; i++) {
    const key = Int32Array.from({ length: 5 }, () => random(3));
    strictEqual(table.get(key), expected.get(key.join()) ?? -1);
  }
});

const PACKET_4 = tcpPacket({ version: 4, flow: 1, sequence: 1, payload: new Uint8Array(5) });
const PACKET_6 = udpPacket({ version: 6, flow: 1, payload: new Uint8Array(5) });

function link(id: number, ip: string, port: number, more: Partial<LinkSpec> = {}): LinkSpec {
  const path = { socket: 0, to: sockAddrOf({ ip: parseIp(ip), port }) };
  return { id, device: -1, cutsUdp: false, mtu: 1400, path, ...more };
}

/** What the reader says of a datagram from there, and the inner packet where it knows the link. */
function readerOf(encapsulation: "gre" | "bare" | "jtunnel", links: LinkSpec[]) {
  const arena = new Arena(new ArrayBuffer(65_536));
  const reader = new HeaderReader(arena, encapsulation);
  reader.setLinks(links);
  return (bytes: Uint8Array, ip: string, port: number): [number, string?] => {
    const from = sockAddrOf({ ip: parseIp(ip), port });
    arena.bytes.set(from, 0);
    reader.from(0, from.length);
    arena.bytes.set(bytes, 64);
    const id = reader.find(64, bytes.length);
    return id < 0 ? [id] : [id, toHex(arena.bytes.slice(reader.innerAt, 64 + bytes.length))];
  };
}

Deno.test("a GRE datagram is its link's by source endpoint and key", () => {
  const find = readerOf("gre", [
    link(0, "192.0.2.1", 1),
    link(1, "192.0.2.1", 1, { keys: { ikey: 7, okey: 8 } }),
    link(2, "2001:db8::1", 1, { keys: { ikey: 0xfedcba98, okey: 8 } }),
    link(3, "192.0.2.9", 1, { keys: { ikey: 0, okey: 8 } }),
  ]);
  const gre = (key?: number) => encodeGre(PACKET_4, key)!;
  const inner = toHex(PACKET_4);
  deepStrictEqual(find(gre(), "192.0.2.1", 1), [0, inner]);
  deepStrictEqual(find(gre(), "192.0.2.1", 5), [-2], "another port");
  deepStrictEqual(find(gre(7), "192.0.2.1", 1), [1, inner]);
  deepStrictEqual(find(gre(8), "192.0.2.1", 1), [-2]);
  deepStrictEqual(find(gre(7), "192.0.2.2", 1), [-2]);
  deepStrictEqual(find(gre(0), "192.0.2.9", 1), [3, inner], "key 0");
  deepStrictEqual(find(gre(), "192.0.2.9", 1), [-2], "no key is not key 0");
  deepStrictEqual(find(encodeGre(PACKET_6, 0xfedcba98)!, "2001:db8::1", 1), [2, toHex(PACKET_6)]);
});

Deno.test("what no GRE header of ours begins is no data, as the slow decoder says", () => {
  const find = readerOf("gre", [link(0, "192.0.2.1", 1)]);
  const random = seededRandom(2);
  for (let i = 0; i < 3000; i++) {
    const good = encodeGre(random(2) === 0 ? PACKET_4 : PACKET_6, random(2) === 0 ? 5 : undefined)!;
    const bytes = good.slice(0, random(3) === 0 ? random(good.length) : good.length);
    if (bytes.length > 0) bytes[random(Math.min(12, bytes.length))]! ^= random(256);
    strictEqual(
      find(bytes, "192.0.2.1", 1)[0] === -1,
      decodeGre(bytes) === undefined,
      toHex(bytes),
    );
  }
});

Deno.test("a bare packet is its link's by endpoint, and says its own length", () => {
  const find = readerOf("bare", [link(0, "192.0.2.1", 1), link(1, "192.0.2.1", 2)]);
  deepStrictEqual(find(PACKET_4, "192.0.2.1", 1), [0, toHex(PACKET_4)]);
  deepStrictEqual(find(PACKET_4, "192.0.2.1", 2), [1, toHex(PACKET_4)]);
  deepStrictEqual(find(PACKET_4, "192.0.2.1", 3), [-2]);
  deepStrictEqual(find(concatBytes(PACKET_4, Uint8Array.of(0)), "192.0.2.1", 1), [-1]);
  deepStrictEqual(find(PACKET_6, "192.0.2.1", 1), [-1]);
});

Deno.test("a jtunnel packet is its link's by identifier, from where that was last", () => {
  const farId = fromHex("0123456789abcdef");
  const find = readerOf("jtunnel", [link(4, "192.0.2.1", 1, { farId })]);
  const bytes = concatBytes(farId, PACKET_6);
  deepStrictEqual(find(bytes, "192.0.2.1", 1), [4, toHex(PACKET_6)]);
  deepStrictEqual(find(bytes, "192.0.2.1", 2), [-2], "moved");
  deepStrictEqual(find(concatBytes(farId.toReversed(), PACKET_6), "192.0.2.1", 1), [-2]);
  deepStrictEqual(find(farId, "192.0.2.1", 1), [-1], "a sign of life");
});

Deno.test("HeaderWriter writes what the slow encoder writes", () => {
  const arena = new Arena(new ArrayBuffer(64));
  const header = (
    encapsulation: "gre" | "jtunnel",
    version: 4 | 6,
    okey: number,
    length: number,
  ) => {
    new HeaderWriter(arena, encapsulation, fromHex("1122334455667788")).write(0, version, okey);
    return toHex(arena.bytes.slice(0, length));
  };
  const gre = (packet: Uint8Array, length: number, key?: number) =>
    toHex(encodeGre(packet, key)!.slice(0, length));
  strictEqual(header("gre", 4, -1, 4), gre(PACKET_4, 4));
  strictEqual(header("gre", 6, 0xdeadbeef, 8), gre(PACKET_6, 8, 0xdeadbeef));
  strictEqual(header("jtunnel", 4, -1, 8), "1122334455667788");
});

Deno.test("sockAddrOf() is what the reader takes", () => {
  const expected = new Writer("network").u16(0x0200).u16(7).bytes(Uint8Array.of(192, 0, 2, 1))
    .zeros(8);
  strictEqual(toHex(sockAddrOf({ ip: parseIp("192.0.2.1"), port: 7 })), toHex(expected.finish()));
});
