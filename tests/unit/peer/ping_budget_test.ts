/** How many pings go to whom others name. */
import { ok, strictEqual } from "node:assert/strict";
import { type Ip, parseIp } from "../../../lib/addr.ts";
import { type NodeKey, nodeKeyFromBytes } from "../../../lib/keys.ts";
import { PingBudget, type UnprovenPing } from "../../../lib/peer/mod.ts";

const VICTIM = parseIp("203.0.113.9");
const peer = (n: number): NodeKey => nodeKeyFromBytes(new Uint8Array(32).fill(n));
const place = (n: number): Ip => parseIp(`198.51.${n >> 8}.${n & 255}`);

/** How many of a hundred tries a second are let through. */
function sent(
  budget: PingBudget,
  seconds: number,
  ping: (i: number) => Pick<UnprovenPing, "peer" | "to"> & { because?: UnprovenPing["because"] },
  fromMs = 0,
): number {
  let count = 0;
  for (let i = 0; i < 100 * seconds; i++) {
    if (budget.take({ because: "told", ...ping(i) }, fromMs + 10 * i)) count++;
  }
  return count;
}

Deno.test("PingBudget: of one peer to one destination, ever fewer", () => {
  const budget = new PingBudget();
  const ping = () => ({ peer: peer(1), to: VICTIM });
  const [first, later] = [sent(budget, 60, ping), sent(budget, 60, ping, 60_000)];
  ok(first >= 100 && first <= 160, `${first}`);
  ok(later <= 16, `${later}`);
});

Deno.test("PingBudget: a destination is an IPv6 /64, for its owner has all of it", () => {
  const budget = new PingBudget();
  const ping = (i: number) => ({ peer: peer(1), to: parseIp(`2001:db8::${(i % 999) + 1}`) });
  ok(sent(budget, 60, ping) <= 160);
});

Deno.test("PingBudget: many peers with one victim share what it gets", () => {
  const count = sent(new PingBudget(), 60, (i) => ({ peer: peer(i % 100), to: VICTIM }));
  ok(count <= 128 + 4 * 60, `${count}`);
});

Deno.test("PingBudget: who has pinged from there is answered, whatever liars have used up", () => {
  const budget = new PingBudget();
  sent(budget, 10, (i) => ({ peer: peer(i % 100), to: VICTIM }));
  strictEqual(budget.take({ peer: peer(200), to: VICTIM, because: "told" }, 9_999), false);
  strictEqual(budget.take({ peer: peer(200), to: VICTIM, because: "heard" }, 9_999), true);
});

Deno.test("PingBudget: one peer with many destinations", () => {
  const count = sent(new PingBudget(), 60, (i) => ({ peer: peer(1), to: place(i % 5_000) }));
  ok(count <= 128 + 8 * 60, `${count}`);
});

Deno.test("PingBudget: all peers and destinations together", () => {
  let count = 0;
  const budget = new PingBudget();
  for (let i = 0; i < 50_000; i++) {
    const ping = { peer: peer(i % 250), to: place(i), because: "told" as const };
    if (budget.take(ping, i / 50)) count++;
  }
  ok(count <= 8_000 + 500, `${count}`);
});

Deno.test("PingBudget: guesses have an allowance of their own, of one attempt", () => {
  const budget = new PingBudget();
  const ping = () => ({ peer: peer(1), to: VICTIM, because: "guessed" as const });
  let count = 0;
  for (let i = 0; i < 5_000; i++) if (budget.take(ping(), i)) count++;
  ok(count >= 1_024 && count <= 1_100 + 50, `${count}`);
  strictEqual(budget.take({ peer: peer(1), to: VICTIM, because: "told" }, 5_000), true);
});
