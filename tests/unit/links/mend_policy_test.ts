/** How often others' changes are put right, under simulated time. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  decideMend,
  MEND_BURST,
  MEND_PAUSE_MS,
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

Deno.test("what somebody keeps undoing is given up once, left for the pause, and tried again", () => {
  const all = decisions(1_000, 2 * MEND_PAUSE_MS);
  deepStrictEqual(all.slice(0, MEND_BURST + 2), [
    ...Array<MendDecision>(MEND_BURST).fill("mend"),
    "give-up",
    "leave",
  ]);
  strictEqual(all.indexOf("mend", MEND_BURST), MEND_BURST + MEND_PAUSE_MS / 1_000);
});

Deno.test("the rate is bounded, however often the difference is seen", () => {
  for (const gapMs of [1, 10, 100, 1_000, 5_000]) {
    const untilMs = 10 * MEND_PAUSE_MS;
    const mended = decisions(gapMs, untilMs).filter((decision) => decision === "mend").length;
    ok(mended <= (untilMs / MEND_PAUSE_MS + 1) * MEND_BURST, `${mended} at ${gapMs} ms`);
  }
});
