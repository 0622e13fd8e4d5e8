/** One member does not keep the others busy. */
import { doesNotThrow, throws } from "node:assert/strict";
import { MemberLimits } from "../../../lib/coord/member_limits.ts";
import { discoKeyFromBytes, nodeKeyFromBytes } from "../../../lib/keys.ts";

const node = (n: number) => nodeKeyFromBytes(new Uint8Array(32).fill(n));
const disco = (n: number) => discoKeyFromBytes(new Uint8Array(32).fill(n));

Deno.test("MemberLimits.message() takes one a second to one node, and one to each of thousands", () => {
  const limits = new MemberLimits();
  for (let i = 0; i < 30; i++) limits.message(node(1), disco(2), 0);
  throws(() => limits.message(node(1), disco(2), 0), { status: 429, retryAfterMs: 1_000 });
  doesNotThrow(() => limits.message(node(3), disco(2), 0));
  for (let i = 1; i <= 60; i++) limits.message(node(1), disco(2), 1_000 * i);
  const afterwardsMs = 120_000;
  for (let n = 0; n < 4_096; n++) {
    const key = new Uint8Array(32);
    new DataView(key.buffer).setUint32(0, n + 1);
    limits.message(node(1), discoKeyFromBytes(key), afterwardsMs);
  }
  throws(() => limits.message(node(1), disco(9), afterwardsMs), { status: 429 });
});

Deno.test("MemberLimits.reach() takes some changes at once, then one in two seconds", () => {
  const limits = new MemberLimits();
  for (let i = 0; i < 20; i++) limits.reach(node(1), 0);
  throws(() => limits.reach(node(1), 1_000), { status: 429 });
  doesNotThrow(() => limits.reach(node(1), 2_000));
  doesNotThrow(() => limits.reach(node(2), 0));
});
