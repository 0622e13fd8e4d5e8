/** Datagrams that threads seal, against those of the main thread's own code. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import open from "libsodium";
import { Arena } from "../../../lib/engine/arena.ts";
import { type Aead, hostAead, type Sodium, wasmAead } from "../../../lib/engine/aead.ts";
import { Cipher, type OpenSession } from "../../../lib/engine/cipher.ts";
import { Sealer } from "../../../lib/hub/protocol/gretun/seal.ts";
import { SessionCounters } from "../../../lib/session_counters.ts";
import { seal } from "../../seal.ts";

const ID = new Uint8Array([9, 1, 2, 3, 4, 5, 6, 7]);
const KEYS = { send: new Uint8Array(32).fill(5), receive: new Uint8Array(32).fill(6) };
const FAR_KEYS = { send: KEYS.receive, receive: KEYS.send };
const [FROM, TO] = [1024, 200_000];

const AEADS: [name: string, aead: Aead | undefined][] = [
  ["WebAssembly", wasmAead(await (open as unknown as () => Promise<Sodium>)())],
  ["the host's libsodium", hostAead()],
];

function bench(encrypt: boolean) {
  const near = new Sealer(ID, KEYS, encrypt);
  const { memory, ...session } = near.shared;
  return {
    arena: new Arena(new ArrayBuffer(400_000)),
    near,
    session: { ...session, counters: new SessionCounters(memory) } satisfies OpenSession,
    far: new Sealer(ID, FAR_KEYS, encrypt),
  };
}

function packetOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * 31 + length);
}

for (const [source, aead] of AEADS) {
  if (aead) { for (const encrypt of [true, false]) testCipher(source, new Cipher(aead), encrypt); }
}

function testCipher(source: string, cipher: Cipher, encrypt: boolean): void {
  const name = `${encrypt ? "encrypted" : "readable"}, by ${source}`;

  Deno.test(`${name}: what threads seal the far end opens, in one piece or two`, () => {
    const { arena, session, near, far } = bench(encrypt);
    for (const length of [20, 21, 1400, 65_535]) {
      for (const first of [length, 20]) {
        const inner = packetOf(length);
        arena.bytes.set(inner.subarray(0, first), FROM);
        arena.bytes.set(inner.subarray(first), FROM + first + 100);
        const pieces = [FROM, first, FROM + first + 100, length - first] as const;
        const sealed = cipher.seal(session, arena, TO, pieces);
        deepStrictEqual(far.open(arena.bytes.slice(TO, TO + sealed)), inner);
      }
    }
    strictEqual(near.sent, 8n, "the main thread sees what threads have sent");
    deepStrictEqual(far.open(seal(near, packetOf(50))), packetOf(50), "and goes on behind them");
  });

  Deno.test(`${name}: what the far end seals threads open once, and never when changed`, () => {
    const { arena, session, near, far } = bench(encrypt);
    const opened = (packet: Uint8Array) => {
      arena.bytes.set(packet, TO);
      return cipher.open(session, arena, TO, packet.length) ??
        arena.bytes.slice(TO + 16, TO + packet.length - 16);
    };
    const packets = [1, 2, 3].map((n) => seal(far, packetOf(100 * n)));
    for (const i of [2, 0, 1]) deepStrictEqual(opened(packets[i]!), packetOf(100 * (i + 1)));
    for (const packet of packets) strictEqual(opened(packet), "replayed");
    strictEqual(near.open(packets[0]!), "replayed", "for the main thread as well");
    strictEqual(near.highest, 2n);
    const last = seal(far, packetOf(60));
    for (let i = 0; i < last.length; i++) {
      // The session is looked up before.
      if (i < 8 && encrypt === false) continue;
      const changed = last.slice();
      changed[i]! ^= 0x80;
      strictEqual(typeof opened(changed), "string", `byte ${i}`);
    }
    deepStrictEqual(opened(last), packetOf(60));
  });
}

Deno.test("SessionCounters: numbers go on beyond 32 bits, in memory that stays", () => {
  const counters = new SessionCounters();
  new Int32Array(counters.memory).set([-2, 1]);
  const numbers = [1, 2, 3].map(() => new SessionCounters(counters.memory).next());
  deepStrictEqual(numbers, [2 ** 33 - 2, 2 ** 33 - 1, 2 ** 33]);
  strictEqual(counters.sent, 2 ** 33 + 1);
});
