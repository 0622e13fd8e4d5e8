import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { concatBytes, fromHex, toHex } from "../../lib/bytes.ts";
import {
  acceptOf,
  encodeFrame,
  MessageReader,
  type WebSocketError,
} from "../../lib/web_socket_frames.ts";

const MASK = fromHex("37fa213d");
const MAX = 70_000;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const hello = new TextEncoder().encode("Hello");

Deno.test("acceptOf() answers the key of RFC 6455 section 1.3", async () => {
  strictEqual(await acceptOf("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
});

Deno.test("encodeFrame() has the bytes of RFC 6455 section 5.7", () => {
  strictEqual(toHex(encodeFrame(1, hello)), "810548656c6c6f");
  strictEqual(toHex(encodeFrame(1, hello, MASK)), "818537fa213d7f9f4d5158");
  strictEqual(toHex(encodeFrame(2, new Uint8Array(256)).subarray(0, 4)), "827e0100");
  strictEqual(toHex(encodeFrame(2, new Uint8Array(256), MASK).subarray(0, 4)), "82fe0100");
  strictEqual(
    toHex(encodeFrame(2, new Uint8Array(65_536), MASK).subarray(0, 10)),
    "82ff0000000000010000",
  );
});

Deno.test("MessageReader reads messages in pieces of any length, of both ends", () => {
  const lengths = [0, 1, 125, 126, 1400, 65_535, 65_536];
  const payloads = lengths.map((length) => Uint8Array.from({ length }, (_, i) => i * 7));
  for (const mask of [undefined, MASK]) {
    const bytes = concatBytes(...payloads.map((payload) => encodeFrame(2, payload, mask)));
    for (const piece of [1, 7, 1024, bytes.length]) {
      const reader = new MessageReader({ isMasked: mask !== undefined, maxMessage: MAX });
      const read: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += piece) {
        for (const { opcode, payload } of reader.push(bytes.subarray(at, at + piece))) {
          strictEqual(opcode, 2);
          read.push(payload);
        }
      }
      strictEqual(reader.isAmid, false);
      strictEqual(read.length, payloads.length);
      for (const [i, payload] of payloads.entries()) strictEqual(toHex(read[i]!), toHex(payload));
    }
  }
});

Deno.test("MessageReader puts a message together, with control frames between its parts", () => {
  // Section 5.7: "Hel", a ping, "lo".
  const reader = new MessageReader({ isMasked: false, maxMessage: MAX });
  const read = [...reader.push(fromHex("010348656c 890548656c6c6f".replace(" ", "")))];
  deepStrictEqual([read.map(({ opcode }) => opcode), reader.isAmid], [[9], true]);
  const rest = [...reader.push(fromHex("80026c6f"))];
  deepStrictEqual(rest.map(({ opcode, payload }) => [opcode, text(payload)]), [[1, "Hello"]]);
  strictEqual(reader.isAmid, false);
});

for (
  const [name, hex, code] of [
    ["a message that is too long, at its header", "82ff0000000004000000", 1009],
    ["one of more bytes than numbers count", "82ffffffffffffffffff", 1009],
    ["a frame without a mask", "820548656c6c6f", 1002],
    ["one of an extension", "c28537fa213d", 1002],
    ["a part of nothing", "808537fa213d", 1002],
    ["a message in another one", "028037fa213d 828037fa213d".replace(" ", ""), 1002],
    ["an unknown kind of message", "838037fa213d", 1002],
    ["an unknown kind of control frame", "8b8037fa213d", 1002],
    ["a control frame in parts", "098037fa213d", 1002],
    ["a control frame that is too long", "89fe00ff37fa213d", 1002],
  ] as const
) {
  Deno.test(`MessageReader refuses ${name}`, () => {
    const reader = new MessageReader({ isMasked: true, maxMessage: MAX });
    // A mask belongs to the header.
    const bytes = concatBytes(fromHex(hex), MASK);
    throws(() => [...reader.push(bytes)], (error: WebSocketError) => error.code === code);
  });
}

Deno.test("MessageReader refuses parts that are too long together, at a header", () => {
  const reader = new MessageReader({ isMasked: false, maxMessage: 1000 });
  const part = (opcode: number, length: number) => {
    const frame = encodeFrame(opcode, new Uint8Array(length));
    frame[0] = opcode;
    return frame;
  };
  deepStrictEqual([...reader.push(concatBytes(part(2, 600), part(0, 400)))], []);
  throws(() => [...reader.push(part(0, 1).subarray(0, 2))], /closed with 1009/);
});
