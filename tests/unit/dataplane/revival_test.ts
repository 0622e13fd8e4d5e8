/** Threads of the data path that ended, in virtual time. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { Revival } from "../../../lib/dataplane/user/revival.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

/** Dies `livesMs` after each start, so often. */
async function dying(livesMs: number, deaths: number) {
  const clock = new VirtualClock();
  const faults: string[] = [];
  const startedMs: number[] = [];
  const start = () => {
    startedMs.push(clock.nowMs());
    if (startedMs.length < deaths) clock.after(livesMs, () => revival.ended("planted"));
  };
  const revival = new Revival(clock, start, (what) => faults.push(what));
  revival.ended("planted");
  await clock.until(clock.sleep(24 * 3_600_000));
  return { startedMs, faults };
}

Deno.test("threads that ended start again, each time later, with a fault for each end", async () => {
  const { startedMs, faults } = await dying(0, 4);
  deepStrictEqual(startedMs, [100, 300, 700, 1500]);
  strictEqual(faults.length, 4);
});

Deno.test("threads that always end at once are given up, and that is told", async () => {
  const { startedMs, faults } = await dying(0, Infinity);
  strictEqual(startedMs.length, 20);
  strictEqual(faults.length, 21);
  match(faults.at(-1)!, /stays off/);
});

Deno.test("threads that ran for a while are never given up", async () => {
  const { startedMs, faults } = await dying(60_000, 50);
  strictEqual(startedMs.length, 50);
  ok(faults.every((what) => what.includes("starts again")));
});
