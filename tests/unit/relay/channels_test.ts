import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { inChannel, readChannel, WaitingShares } from "../../../lib/relay/channels.ts";

Deno.test("inChannel() and readChannel(): the number first, in network order", () => {
  const message = inChannel(0x1234, Uint8Array.of(5, 6));
  deepStrictEqual([...message], [0x12, 0x34, 5, 6]);
  deepStrictEqual(readChannel(message), { channel: 0x1234, bytes: Uint8Array.of(5, 6) });
  deepStrictEqual(readChannel(inChannel(65_535, new Uint8Array())), {
    channel: 65_535,
    bytes: new Uint8Array(),
  });
  strictEqual(readChannel(Uint8Array.of(1)), undefined);
});

/** A connection that sends nothing until it is told to. */
class Stuck {
  readonly #shares = new WaitingShares();
  readonly #lengths: number[] = [];

  get waiting(): number {
    return this.#lengths.reduce((sum, length) => sum + length, 0);
  }

  send(channel: number, length: number): boolean {
    const isTaken = this.#shares.take(channel, length, this.waiting);
    if (isTaken) this.#lengths.push(length);
    return isTaken;
  }

  flood(channel: number): number {
    let bytes = 0;
    while (this.send(channel, 1_400)) bytes += 1_400;
    return bytes;
  }

  leave(count: number): void {
    this.#lengths.splice(0, count);
  }
}

Deno.test("WaitingShares: who floods takes half, and leaves room for each that comes later", () => {
  const stuck = new Stuck();
  const first = stuck.flood(1);
  ok(first > 250_000 && first <= 256 * 1024, `${first}`);
  strictEqual(stuck.send(1, 1_400), false);
  for (let channel = 2; channel < 8; channel++) {
    strictEqual(stuck.send(channel, 1_400), true, `channel ${channel}`);
  }
  const second = stuck.flood(9);
  ok(second > 100_000, `${second}`);
  strictEqual(stuck.send(10, 1_400), true);
});

Deno.test("WaitingShares: what has left makes room, for as long as it goes on", () => {
  const stuck = new Stuck();
  stuck.flood(1);
  for (let i = 0; i < 2_000; i++) {
    stuck.leave(2);
    strictEqual(stuck.send(1, 1_400), true, `after ${i}`);
  }
  stuck.leave(Infinity);
  ok(stuck.flood(1) > 250_000);
});
