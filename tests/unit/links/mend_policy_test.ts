/** How often others' changes are put right, under simulated time. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  decideMend,
  FIRST_MEND_PAUSE_MS,
  LAST_MEND_PAUSE_MS,
  MEND_BURST,
  MEND_WINDOW_MS,
  type MendDecision,
  NEVER_MENDED,
} from "../../../lib/links/mend_policy.ts";

/** What is decided when the difference is there every `gapMs`. */
function decisions(gapMs: number, untilMs: number): MendDecision[] {
  const all: MendDecision[] = [];
  let history = NEVER_MENDED;
  for (let nowMs = 0; nowMs < untilMs; nowMs += gapMs) {
    const [decision, next] = decideMend(history, nowMs);
    all.push(decision);
    history = next;
  }
  return all;
}

Deno.test("what is changed now and then is put right for ever", () => {
  const gapMs = Math.ceil(MEND_WINDOW_MS / MEND_BURST);
  deepStrictEqual(new Set(decisions(gapMs, 100 * MEND_WINDOW_MS)), new Set(["mend"]));
});

Deno.test("what somebody keeps undoing is given up once, and tried again ever later", () => {
  const all = decisions(1_000, 3 * LAST_MEND_PAUSE_MS);
  deepStrictEqual(all.slice(0, MEND_BURST + 2), [
    ...Array<MendDecision>(MEND_BURST).fill("mend"),
    "give-up",
    "leave",
  ]);
  strictEqual(all.filter((decision) => decision === "give-up").length, 1);
  const again = all.flatMap((decision, second) => decision === "mend" ? [second] : [])
    .slice(MEND_BURST - 1);
  const pauses = again.slice(1).map((second, i) => second - again[i]! - 1);
  deepStrictEqual(pauses, [10, 20, 40, 80, 160, 320, 600, ...pauses.slice(7)]);
});

Deno.test("who left off finds it put right soon, and changes of later are put right at once", () => {
  let history = NEVER_MENDED;
  for (let nowMs = 0; nowMs <= MEND_BURST; nowMs++) [, history] = decideMend(history, nowMs);
  let nowMs = MEND_BURST + FIRST_MEND_PAUSE_MS;
  const decide = (): MendDecision => {
    const [decision, next] = decideMend(history, nowMs);
    history = next;
    return decision;
  };
  strictEqual(decide(), "mend");
  nowMs += MEND_WINDOW_MS;
  const later = Array.from({ length: MEND_BURST + 1 }, decide);
  deepStrictEqual(later, [...Array<MendDecision>(MEND_BURST).fill("mend"), "give-up"]);
});

Deno.test("the rate is bounded, however often the difference is seen", () => {
  for (const gapMs of [1, 10, 100, 1_000, 5_000]) {
    const untilMs = 3 * LAST_MEND_PAUSE_MS;
    const mended = decisions(gapMs, untilMs).filter((decision) => decision === "mend").length;
    ok(mended <= MEND_BURST + 6 + untilMs / LAST_MEND_PAUSE_MS, `${mended} at ${gapMs} ms`);
  }
});
