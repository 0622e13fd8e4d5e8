/** Whose signalling is looked at under a flood. */
import { ok, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { Admission } from "../../../lib/hub/protocol/gretun/admission.ts";
import { Cookies } from "../../../lib/hub/protocol/gretun/auth.ts";
import * as wire from "../../../lib/hub/protocol/gretun/wire.ts";

const FLOOD_PER_MS = 5;
const SECONDS = 20;
const ALICE = "198.51.100.7";

/** Runs for a while, with `flood` five times a millisecond; how often of 20 tries `ask` is served. */
function served(
  flood: (admission: Admission, nowMs: number, i: number) => void,
  ask: (admission: Admission, nowMs: number) => boolean,
): number {
  const admission = new Admission();
  let count = 0;
  for (let nowMs = 0; nowMs < SECONDS * 1000; nowMs++) {
    for (let i = 0; i < FLOOD_PER_MS; i++) flood(admission, nowMs, nowMs * FLOOD_PER_MS + i);
    if (nowMs % 1000 === 999 && ask(admission, nowMs)) count++;
  }
  return count;
}

const FLOODS: Record<string, (admission: Admission, nowMs: number, i: number) => void> = {
  "hellos from everywhere": (admission, nowMs, i) => admission.stranger(`192.0.2.${i}`, nowMs),
  "hellos in the client's own name and address": (admission, nowMs) =>
    admission.stranger(ALICE, nowMs),
};
const CLIENTS: Record<string, (admission: Admission, nowMs: number) => boolean> = {
  "says hello": (admission, nowMs) => admission.stranger(ALICE, nowMs),
  "answers a challenge": (admission, nowMs) =>
    admission.answer(nowMs) && admission.proven(ALICE, nowMs),
  "is in a session": (admission, nowMs) => admission.session(nowMs),
};
for (const [flood, forge] of Object.entries(FLOODS)) {
  for (const [client, ask] of Object.entries(CLIENTS)) {
    Deno.test(`5,000 ${flood} a second: a client that ${client} is served`, () => {
      strictEqual(served(forge, ask), SECONDS);
    });
  }
}

Deno.test("50,000 hellos of one address a second leave room for another address", () => {
  const admission = new Admission();
  let count = 0;
  for (let nowMs = 0; nowMs < 5000; nowMs++) {
    for (let i = 0; i < 50; i++) admission.stranger("192.0.2.1", nowMs);
    if (nowMs % 10 === 9 && admission.stranger(ALICE, nowMs)) count++;
  }
  strictEqual(count, 500);
});

Deno.test("where answers are dear, strangers get half of the time, and the rest is dropped at once", () => {
  const admission = new Admission();
  const COST_MS = 0.5;
  let [nowMs, busyMs, served] = [0, 0, 0];
  // 5,000 a second, of which this machine could answer 2,000.
  for (let i = 0; i < 50_000; i++) {
    nowMs = Math.max(nowMs, i / 5);
    if (!admission.stranger(`192.0.2.${i}`, nowMs)) continue;
    served++;
    busyMs += COST_MS;
    nowMs += COST_MS;
    admission.spent(COST_MS);
  }
  ok(nowMs < 10_200, `${nowMs - 10_000} ms behind`);
  ok(Math.abs(busyMs / nowMs - 0.5) < 0.05, `${busyMs} ms, ${served} served`);
});

Deno.test("what answers no challenge is refused before a cookie is looked at", () => {
  const cookies = new Cookies(new Uint8Array(32).fill(1));
  const hello = { nonce: new Uint8Array(16), name: "alice" };
  const from = parseEndpoint(`${ALICE}:7788`);
  const wallMs = 1_800_000_000_000;
  const { stamp } = wire.decodeChallenge(cookies.challenge(hello, from, wallMs));
  ok(cookies.wasMade(stamp, wallMs));
  const guesses = Array.from({ length: 10_000 }, (_, i) => stamp - 5000n + BigInt(i));
  strictEqual(guesses.filter((guess) => cookies.wasMade(guess, wallMs)).length, 1);
});

Deno.test("so many challenges are remembered, and no more", () => {
  const cookies = new Cookies(new Uint8Array(32).fill(1));
  const hello = { nonce: new Uint8Array(16), name: "alice" };
  const from = parseEndpoint(`${ALICE}:7788`);
  const challenge = () =>
    wire.decodeChallenge(cookies.challenge(hello, from, 1_800_000_000_000)).stamp;
  const first = challenge();
  for (let i = 1; i < 100_000; i++) challenge();
  const last = challenge();
  strictEqual(cookies.wasMade(first, 1_800_000_000_000), false);
  strictEqual(cookies.wasMade(last, 1_800_000_000_000), true);
});
