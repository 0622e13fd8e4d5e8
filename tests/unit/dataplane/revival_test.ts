/** Threads of the data path that ended, in virtual time. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { GreCodec, openPlane } from "../../../lib/dataplane/mod.ts";
import { Revival } from "../../../lib/dataplane/user/revival.ts";
import { silentLog } from "../../../lib/edges.ts";
import type { Engine, EngineOptions } from "../../../lib/engine/mod.ts";
import { FakeHost } from "../../fakes/host.ts";
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

Deno.test("the user plane tells of the engine, and starts it again, once for both threads", async () => {
  const clock = new VirtualClock();
  const faults: unknown[] = [];
  let options: EngineOptions | undefined;
  let restarts = 0;
  const engine = {
    restart: () => void restarts++,
    features: { segments: true },
    drops: () => ({ "no-path": 3, "own-tunnel": 2 }),
    [Symbol.asyncDispose]: async () => {},
  } as unknown as Engine;
  const host = Object.assign(new FakeHost(), {
    openEngine: (wanted: EngineOptions) => {
      options = wanted;
      return engine;
    },
  });
  const plane = openPlane(
    { wanted: "tun", codec: () => new GreCodec() },
    {
      ...{ role: "up", port: 7777, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
      encapCsum: "off",
      onDatagram: () => {},
      onFault: (_what, error) => faults.push(error),
    },
    { host, clock, log: silentLog },
  );
  options!.onFailed("planted");
  options!.onFailed("planted too");
  strictEqual(restarts, 0);
  await clock.until(clock.sleep(1000));
  strictEqual(restarts, 1);
  deepStrictEqual(faults, [new Error("planted"), new Error("planted too")]);

  deepStrictEqual(plane.threads?.()?.features, { segments: true });
  deepStrictEqual(plane.threads?.()?.drops.get("no-path"), 3);
  deepStrictEqual([...plane.refused()], [["own-tunnel", 2]]);

  options!.onFailed("planted");
  await plane[Symbol.asyncDispose]();
  await clock.until(clock.sleep(1000));
  strictEqual(restarts, 1);
});
