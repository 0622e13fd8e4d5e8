/** What two nodes know of each other's runs, and the keys that follow of it. */
import { deepStrictEqual, notDeepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { PairSession } from "../../../lib/daemon/pair_session.ts";
import { systemRandom } from "../../../lib/edges.ts";
import { discoKeyFromBytes } from "../../../lib/keys.ts";

const disco = (n: number) => discoKeyFromBytes(new Uint8Array(32).fill(n));
const boxKey = new Uint8Array(32).fill(9);

function run(own: number, peer: number, adopted?: string): PairSession {
  const epoch = systemRandom(8);
  const keys = { identity: { discoKey: disco(own) }, peer: disco(peer) };
  return new PairSession({ epoch, random: systemRandom, boxKey, ...keys, hasKeys: true, adopted });
}

/** Each has pinged the other, and was answered. */
function meet(a: PairSession, b: PairSession): void {
  a.answered(b.extension());
  b.answered(a.extension());
}

async function match(a: PairSession, b: PairSession): Promise<boolean> {
  const [left, right] = [await a.keys, await b.keys];
  return left!.ikey === right!.okey && left!.okey === right!.ikey;
}

Deno.test("PairSession: both ends come to the same keys, others each time", async () => {
  const [a, b] = [run(1, 2), run(2, 1)];
  ok(await match(a, b), "for one that knows no sessions");
  const before = await a.keys;
  meet(a, b);
  ok(await match(a, b));
  notDeepStrictEqual(await a.keys, before);
  const first = await a.keys;
  a.renew();
  b.renew();
  meet(a, b);
  ok(await match(a, b));
  notDeepStrictEqual(await a.keys, first);
});

Deno.test("PairSession: one end that makes its path anew is followed by the other", async () => {
  const [a, b] = [run(1, 2), run(2, 1)];
  meet(a, b);
  strictEqual(b.isNews(a.extension()), false);
  a.renew();
  strictEqual(b.isNews(a.extension()), true);
  b.answered(a.extension());
  ok(await match(a, b));
});

Deno.test("PairSession: keys stay the same promise until they are others", async () => {
  const [a, b] = [run(1, 2), run(2, 1)];
  a.answered(b.extension());
  const { keys } = a;
  a.answered(b.extension());
  strictEqual(a.keys, keys);
  b.renew();
  a.answered(b.extension());
  ok(a.keys !== keys);
  await Promise.all([keys, a.keys]);
});

Deno.test("PairSession: a link that is adopted keeps its keys, unless the peer has others", async () => {
  const [a, b] = [run(1, 2), run(2, 1)];
  meet(a, b);
  const again = run(1, 2, a.text);
  deepStrictEqual(await again.keys, await a.keys);
  const { keys } = again;
  meet(again, b);
  strictEqual(again.keys, keys);
  ok(await match(again, b));
  const other = run(2, 1);
  meet(again, other);
  ok(await match(again, other));
  notDeepStrictEqual(await again.keys, await a.keys);
});

Deno.test("PairSession: a ping is of this run if it has its epoch", () => {
  const [a, b] = [run(1, 2), run(2, 1)];
  strictEqual(b.pinged(a.extension()), false);
  meet(a, b);
  const recorded = a.extension();
  strictEqual(b.pinged(recorded), true);
  const restarted = run(2, 1);
  strictEqual(restarted.pinged(recorded), false);
  strictEqual(restarted.pinged(undefined), true, "of a program of before");
});

Deno.test("PairSession: a peer of before has keys of no session", async () => {
  const a = run(1, 2);
  a.answered(run(2, 1).extension());
  a.answered(undefined);
  strictEqual(a.isOld, true);
  strictEqual(a.text, undefined);
  ok(await match(a, run(2, 1)));
});
