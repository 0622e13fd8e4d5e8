import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { fromHex, toHex } from "../../lib/bytes.ts";
import { decodeEchoReply, encodeEcho } from "../../lib/health/icmp.ts";

const REQUEST = "0800 0000 04d2 0001 0102030405060708"; // its checksum aside

Deno.test("encodeEcho() puts the checksum of RFC 1071 over the whole message", () => {
  const data = fromHex("0102030405060708");
  const bytes = encodeEcho({ identifier: 0x04d2, sequence: 1, data });
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i]! * 256 + bytes[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  strictEqual(sum, 0xffff);
  strictEqual(toHex(bytes.subarray(4)), toHex(fromHex(REQUEST).subarray(4)));
});

Deno.test("decodeEchoReply() takes whole echo replies only", () => {
  const data = fromHex("0102030405");
  const echo = encodeEcho({ identifier: 7, sequence: 65_535, data });
  const reply = echo.slice();
  reply[0] = 0;
  // The type went from 8 to 0: so much more has the checksum's high byte.
  reply[2] = reply[2]! + 8;
  deepStrictEqual(decodeEchoReply(reply), { identifier: 7, sequence: 65_535, data });
  strictEqual(decodeEchoReply(echo), undefined, "a request");
  for (let length = 0; length < reply.length; length++) {
    strictEqual(decodeEchoReply(reply.subarray(0, length)), undefined, `cut to ${length}`);
  }
  for (let i = 0; i < reply.length; i++) {
    const broken = reply.slice();
    broken[i] = broken[i]! ^ 1;
    strictEqual(decodeEchoReply(broken), undefined, `byte ${i}`);
  }
});
