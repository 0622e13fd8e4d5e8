/** What present nodes add to pings and pongs, and others take for padding. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import {
  decodeMessage,
  encodeMessage,
  type Extension,
  type Ping,
  type Pong,
} from "../../../lib/disco/mod.ts";

const filled = (length: number, byte: number) => new Uint8Array(length).fill(byte);
const extension: Extension = {
  nominating: true,
  epoch: filled(8, 0xe1),
  echo: filled(8, 0xec),
  session: filled(16, 0x5e),
};
const ping: Ping = { type: "ping", txId: filled(12, 1), nodeKey: filled(32, 2), padding: 0 };
const pong: Pong = { type: "pong", txId: filled(12, 1), source: parseEndpoint("192.0.2.1:7777") };
const BYTES = "6772746e 01 01 0000" + "e1".repeat(8) + "ec".repeat(8) + "5e".repeat(16);

Deno.test("an extension stands behind the node key of a ping, and at the end of a pong", () => {
  for (const [message, before] of [[ping, 46], [pong, 32]] as const) {
    const bytes = encodeMessage({ ...message, extension });
    strictEqual(toHex(bytes.subarray(before)), toHex(fromHex(BYTES)));
    deepStrictEqual((decodeMessage(bytes) as Ping).extension, extension);
  }
});

Deno.test("a ping with an extension is padded behind it", () => {
  const bytes = encodeMessage({ ...ping, extension, padTo: 1_000 });
  const read = decodeMessage(bytes) as Ping;
  deepStrictEqual(read.extension, extension);
  strictEqual(read.padding, bytes.length - 46);
});

Deno.test("what others have there is no extension; a later version's is read as far as it is known", () => {
  const read = (hex: string) => {
    const tail = fromHex(hex);
    const bytes = new Uint8Array([...encodeMessage(ping), ...tail]);
    return (decodeMessage(bytes) as Ping).extension;
  };
  const plain = { ...extension, nominating: false };
  strictEqual(read("00".repeat(40)), undefined);
  strictEqual(read(BYTES.slice(0, -2)), undefined);
  strictEqual(read(BYTES.replace("6772746e 01", "6772746e 00")), undefined);
  deepStrictEqual(read(BYTES.replace("6772746e 01 01", "6772746e 09 f0") + "ffff"), plain);
});

Deno.test("a pong is no longer than the ping that it answers", () => {
  const length = (message: Ping | Pong) => encodeMessage(message).length;
  ok(length(pong) <= length(ping), "without extensions");
  ok(length({ ...pong, extension }) <= length({ ...ping, extension }));
});
