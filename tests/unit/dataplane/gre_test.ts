import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { decodeGre, encodeGre } from "../../gre.ts";
import { Arena } from "../../../lib/engine/arena.ts";
import { HeaderReader } from "../../../lib/engine/encapsulation.ts";
import { overheadBytes } from "../../../lib/links/mod.ts";

const IPV4 = fromHex("4500001400004000400166d60a0000020a000001");
const IPV6 = fromHex("60000000000000ff" + "00".repeat(32));

Deno.test("encodeGre() writes the header of RFC 2784, with a key that of RFC 2890", () => {
  const cases: [string, Uint8Array, number | undefined, string][] = [
    ["IPv4 without key", IPV4, undefined, "00000800"],
    ["IPv4 with key", IPV4, 0xdeadbeef, "20000800deadbeef"],
    ["IPv6 with key", IPV6, 1, "200086dd00000001"],
  ];
  for (const [name, inner, key, header] of cases) {
    const packet = encodeGre(inner, key)!;
    strictEqual(toHex(packet), header + toHex(inner), name);
    const decoded = decodeGre(packet)!;
    strictEqual(decoded.key, key, name);
    deepStrictEqual(new Uint8Array(decoded.inner), inner, name);
  }
  strictEqual(encodeGre(fromHex("00112233")), undefined, "not IP");
});

Deno.test("decodeGre() and the engine refuse what no node sends", () => {
  const inner = toHex(IPV4);
  const cases: [string, string][] = [
    ["empty", ""],
    ["three bytes", "000008"],
    ["version 1", "00010800" + inner],
    ["checksum", "8000080000000000" + inner],
    ["sequence number", "1000080000000000" + inner],
    ["routing", "40000800" + inner],
    ["key cut off", "20000800dead"],
    ["protocol and packet differ", "000086dd" + inner],
    ["Ethernet inside", "00006558" + inner],
    ["no inner packet", "00000800"],
    ["disco", "5453f09f92ac" + "00".repeat(60)],
    ["STUN", "000100002112a442" + "00".repeat(12)],
  ];
  const arena = new Arena(new ArrayBuffer(256));
  const reader = new HeaderReader(arena, "gre");
  for (const [name, hex] of cases) {
    const bytes = fromHex(hex);
    strictEqual(decodeGre(bytes), undefined, name);
    arena.bytes.set(bytes);
    strictEqual(reader.find(0, bytes.length), -1, name);
  }
});

Deno.test("overheadBytes() is the bytes around an inner packet", () => {
  const header = (key?: number) => encodeGre(IPV4, key)!.length - IPV4.length;
  for (const [kind, ipHeader] of [["gre", 20], ["ip6gre", 40]] as const) {
    strictEqual(overheadBytes({ kind, encap: "fou" }), ipHeader + 8 + header());
    strictEqual(overheadBytes({ kind, encap: "fou", key: true }), ipHeader + 8 + header(1));
  }
});
