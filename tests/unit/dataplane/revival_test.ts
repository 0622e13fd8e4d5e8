/** Threads of the data path that ended, in virtual time. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { Revival } from "../../../lib/dataplane/user/revival.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

/** Dies `livesMs` after each start, so often. */
async function dying(livesMs: number, deaths: number, hours = 24) {
  const clock = new VirtualClock();
  const faults: string[] = [];
  const startedMs: number[] = [];
  const start = () => {
    startedMs.push(clock.nowMs());
    if (startedMs.length < deaths) clock.after(livesMs, () => revival.ended("planted"));
  };
  const revival = new Revival(clock, start, (what) => faults.push(what));
  revival.ended("planted");
  await clock.until(clock.sleep(hours * 3_600_000));
  return { startedMs, faults };
}

Deno.test("threads that ended start again, each time later, with a fault for each end", async () => {
  const { startedMs, faults } = await dying(0, 4);
  deepStrictEqual(startedMs, [100, 300, 700, 1500]);
  strictEqual(faults.length, 4);
});

Deno.test("threads that always end at once start again every half a minute, for ever", async () => {
  const { startedMs } = await dying(0, Infinity, 1);
  const gapsMs = startedMs.slice(1).map((ms, i) => ms - startedMs[i]!);
  ok(startedMs.length > 120, `${startedMs.length} in an hour`);
  strictEqual(Math.max(...gapsMs), 30_000);
});

Deno.test("threads that ran for a while start again soon", async () => {
  const { startedMs, faults } = await dying(60_000, 50);
  strictEqual(startedMs.length, 50);
  strictEqual(startedMs[9]! - startedMs[8]!, 60_100);
  ok(faults.every((what) => what.includes("starts again")));
});
