/** A signature is good once: with time as an argument. */
import { ok, strictEqual, throws } from "node:assert/strict";
import { MAX_SEEN, MAX_SEEN_PER_NODE, Replays } from "../../../lib/coord/replays.ts";
import { Refusal } from "../../../lib/coord/refusal.ts";
import { nodeKeyFromBytes } from "../../../lib/keys.ts";

const START_MS = 1_800_000_000_000;

function nodeKey(n: number) {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return nodeKeyFromBytes(key);
}

function refuses(status: number, message: RegExp, act: () => unknown): void {
  throws(act, (error) => {
    ok(error instanceof Refusal && message.test(error.message));
    strictEqual(error.status, status);
    return true;
  });
}

const claim = (n: number, signature: string) => ({
  nodeKey: nodeKey(n),
  signature,
  timestampSeconds: START_MS / 1000,
});

Deno.test("acceptOnce() takes a signature once while its timestamp is good", () => {
  const replays = new Replays();
  replays.acceptOnce(claim(1, "a"));
  replays.acceptOnce(claim(1, "b"));
  replays.sweep(START_MS + 60_999);
  refuses(401, /sent before/, () => replays.acceptOnce(claim(1, "a")));
  replays.sweep(START_MS + 61_001);
  replays.acceptOnce(claim(1, "a"));
});

Deno.test("one node that floods is refused until its signatures are old; others are not", () => {
  const replays = new Replays();
  for (let n = 0; n < MAX_SEEN_PER_NODE; n++) replays.acceptOnce(claim(1, `${n}`));
  refuses(429, /too many requests of this node/, () => {
    replays.acceptOnce(claim(1, "more"));
  });
  replays.acceptOnce(claim(2, "a"));
  replays.sweep(START_MS + 61_001);
  replays.acceptOnce(claim(1, "more"));
});

Deno.test("signatures of all nodes together are bounded", () => {
  const replays = new Replays();
  const nodes = Math.ceil(MAX_SEEN / MAX_SEEN_PER_NODE);
  let taken = 0;
  throws(() => {
    for (let n = 0; n < nodes; n++) {
      for (let i = 0; i < MAX_SEEN_PER_NODE; i++, taken++) {
        replays.acceptOnce(claim(n, `${i}`));
      }
    }
  }, /too many requests of all nodes/);
  strictEqual(taken, MAX_SEEN);
});
