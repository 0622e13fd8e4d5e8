import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import {
  decodeEchoReply,
  decodeQuotedEcho,
  encodeEcho,
  icmpErrorText,
} from "../../../lib/health/icmp.ts";

const REQUEST = "0800 0000 04d2 0001 0102030405060708"; // its checksum aside

Deno.test("encodeEcho() puts the checksum of RFC 1071 over the whole message", () => {
  const data = fromHex("0102030405060708");
  const bytes = encodeEcho(4, { identifier: 0x04d2, sequence: 1, data });
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i]! * 256 + bytes[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  strictEqual(sum, 0xffff);
  strictEqual(toHex(bytes.subarray(4)), toHex(fromHex(REQUEST).subarray(4)));
});

Deno.test("encodeEcho() leaves the checksum of ICMPv6 to the kernel", () => {
  const data = fromHex("0102030405060708");
  const bytes = encodeEcho(6, { identifier: 0x04d2, sequence: 1, data });
  strictEqual(toHex(bytes), "80000000" + "04d20001" + "0102030405060708");
});

Deno.test("decodeEchoReply() takes whole echo replies only", () => {
  const data = fromHex("0102030405");
  const echo = encodeEcho(4, { identifier: 7, sequence: 65_535, data });
  const reply = echo.slice();
  reply[0] = 0;
  // The type went from 8 to 0: so much more has the checksum's high byte.
  reply[2] = reply[2]! + 8;
  deepStrictEqual(decodeEchoReply(4, reply), { identifier: 7, sequence: 65_535, data });
  strictEqual(decodeEchoReply(4, echo), undefined, "a request");
  strictEqual(decodeEchoReply(6, reply), undefined, "not of ICMPv6");
  for (let length = 0; length < reply.length; length++) {
    strictEqual(decodeEchoReply(4, reply.subarray(0, length)), undefined, `cut to ${length}`);
  }
  for (let i = 0; i < reply.length; i++) {
    const broken = reply.slice();
    broken[i] = broken[i]! ^ 1;
    strictEqual(decodeEchoReply(4, broken), undefined, `byte ${i}`);
  }
});

Deno.test("decodeEchoReply() tells ICMPv6 by its types", () => {
  const reply = fromHex("8100 abcd 0007 ffff 0102");
  deepStrictEqual(decodeEchoReply(6, reply), {
    identifier: 7,
    sequence: 65_535,
    data: fromHex("0102"),
  });
  const cases: [string, string][] = [
    ["a request", "8000 abcd 0007 ffff 0102"],
    ["an error", "0100 abcd 0007 ffff 0102"],
    ["a code", "8101 abcd 0007 ffff 0102"],
    ["cut short", "8100 abcd 0007 ff"],
    ["nothing", ""],
    ["ICMP for IPv4", "0000 abcd 0007 ffff 0102"],
  ];
  for (const [name, hex] of cases) {
    strictEqual(decodeEchoReply(6, fromHex(hex)), undefined, name);
  }
});

Deno.test("decodeQuotedEcho() reads the start of an echo", () => {
  for (const [family, type] of [[4, "08"], [6, "80"]] as const) {
    const read = (hex: string) => decodeQuotedEcho(family, fromHex(hex));
    const head = { identifier: 7, sequence: 65_535 };
    deepStrictEqual(read(`${type}00 abcd 0007 ffff 0102`), { ...head, data: fromHex("0102") });
    deepStrictEqual(read(`${type}00 abcd 0007 ffff`), { ...head, data: new Uint8Array() });
    for (
      const hex of ["", `${type}00 abcd 0007 ff`, `${type}01 abcd 0007 ffff`, "0000abcd0007ffff"]
    ) {
      strictEqual(read(hex), undefined, hex);
    }
  }
});

Deno.test("icmpErrorText() has words for the errors that there are", () => {
  const cases: [4 | 6, number, number, string][] = [
    [4, 3, 1, "host unreachable"],
    [4, 3, 13, "a firewall prohibits it"],
    [4, 3, 4, "the message is larger than the path takes"],
    [4, 3, 99, "unreachable"],
    [4, 11, 0, "too many hops: routers may send it in a circle"],
    [4, 12, 0, "ICMP type 12, code 0"],
    [6, 1, 0, "no route to it"],
    [6, 1, 3, "host unreachable"],
    [6, 2, 0, "the message is larger than the path takes"],
    [6, 3, 0, "too many hops: routers may send it in a circle"],
    [6, 4, 1, "ICMP type 4, code 1"],
  ];
  for (const [family, type, code, text] of cases) {
    strictEqual(icmpErrorText(family, { type, code }), text);
  }
});
