/** A server's end of a WebSocket over a stream in memory, under a time that the tests tell. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { ByteStream } from "../../lib/byte_stream.ts";
import { concatBytes, toHex } from "../../lib/bytes.ts";
import { WebSocketEnd } from "../../lib/web_socket.ts";
import { encodeFrame, OPCODE } from "../../lib/web_socket_frames.ts";
import { settle } from "../fakes/settle.ts";

const MASK = new Uint8Array(4);

class Bench {
  readonly written: Uint8Array[] = [];
  readonly received: string[] = [];
  closed: string | undefined;
  isStuck = false;
  #next = Promise.withResolvers<Uint8Array | undefined>();
  readonly end: WebSocketEnd;

  constructor() {
    const stream: ByteStream = {
      read: () => this.#next.promise,
      write: async (bytes) => {
        if (this.isStuck) await new Promise(() => {});
        this.written.push(bytes);
      },
      [Symbol.dispose]: () => this.#next.resolve(undefined),
    };
    this.end = new WebSocketEnd({ stream, read: () => stream.read(), maxMessage: 1000 });
    this.end.start({
      onMessage: (bytes) => this.received.push(toHex(bytes)),
      onClosed: (reason) => this.closed = reason,
    });
  }

  async comes(...bytes: Uint8Array[]): Promise<void> {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers();
    resolve(concatBytes(...bytes));
    await settle();
  }

  /** Each few seconds until then. */
  async sweep(fromMs: number, toMs: number): Promise<void> {
    for (let nowMs = fromMs; nowMs <= toMs; nowMs += 5_000) this.end.sweep(nowMs);
    await settle();
  }

  get sent(): string {
    return this.written.splice(0).map(toHex).join(" ");
  }
}

const from = (opcode: number, payload: Uint8Array) => encodeFrame(opcode, payload, MASK);

Deno.test("WebSocketEnd: a message that does not end closes it, whatever else comes", async () => {
  const bench = new Bench();
  const part = from(OPCODE.binary, Uint8Array.of(1));
  part[0] = OPCODE.binary;
  await bench.comes(part);
  await bench.sweep(0, 5_000);
  part[0] = OPCODE.continuation;
  await bench.comes(part, from(OPCODE.pong, new Uint8Array()));
  strictEqual(bench.end.isOpen, true);
  await bench.sweep(10_000, 10_000);
  deepStrictEqual([bench.end.isOpen, bench.sent], [false, "880203f0"]);
  strictEqual(bench.closed, undefined);
  await bench.sweep(15_000, 25_000);
  strictEqual(bench.closed, "closed with 1006");
});

Deno.test("WebSocketEnd: messages that end keep it, slow ones too", async () => {
  const bench = new Bench();
  const message = from(OPCODE.binary, Uint8Array.of(7));
  await bench.comes(message.subarray(0, 3));
  await bench.sweep(0, 5_000);
  for (let nowMs = 10_000; nowMs < 60_000; nowMs += 5_000) {
    await bench.comes(message.subarray(3), message.subarray(0, 3));
    // No sweep has seen it between two messages.
    await bench.sweep(nowMs, nowMs);
  }
  deepStrictEqual([bench.end.isOpen, bench.received.length], [true, 10]);
});

Deno.test("WebSocketEnd: who sends too much is told and may end it; the rest is dropped", async () => {
  const bench = new Bench();
  await bench.comes(from(OPCODE.binary, new Uint8Array(1001)).subarray(0, 8));
  strictEqual(bench.sent, "880203f1");
  await bench.comes(new Uint8Array(100_000), from(OPCODE.binary, Uint8Array.of(1)));
  bench.end.send(Uint8Array.of(2));
  deepStrictEqual([bench.received, bench.sent, bench.closed], [[], "", undefined]);
  bench.end[Symbol.dispose]();
  await settle();
  strictEqual(bench.closed, "closed with 1009: a message that is too long");
});

Deno.test("WebSocketEnd: one from which nothing comes is pinged, then given up", async () => {
  const bench = new Bench();
  await bench.sweep(0, 20_000);
  strictEqual(bench.sent, "");
  await bench.sweep(25_000, 25_000);
  strictEqual(bench.sent, "8900");
  await bench.comes(from(OPCODE.pong, new Uint8Array()));
  await bench.sweep(30_000, 75_000);
  strictEqual(bench.end.isOpen, true);
  await bench.sweep(80_000, 80_000);
  strictEqual(bench.end.isOpen, false);
});

Deno.test("WebSocketEnd: pings are answered, not those of who reads nothing; texts are refused", async () => {
  const bench = new Bench();
  await bench.comes(from(OPCODE.ping, Uint8Array.of(1, 2)));
  strictEqual(bench.sent, "8a020102");
  bench.isStuck = true;
  const ping = from(OPCODE.ping, new Uint8Array(125));
  for (let i = 0; i < 1000; i++) await bench.comes(ping);
  strictEqual(bench.end.bufferedBytes < 20_000, true);
  await bench.comes(from(OPCODE.text, Uint8Array.of(0x61)));
  strictEqual(bench.end.isOpen, false);
});
