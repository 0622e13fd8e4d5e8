import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { firstToSucceed } from "../../lib/stagger.ts";
import { VirtualClock } from "../fakes/virtual_clock.ts";

type Fate = { afterMs: number; fails?: string };

/** Runs it in virtual time, and tells when what was started and what was ended. */
async function run(fates: Record<string, Fate>, signal = new AbortController().signal) {
  const clock = new VirtualClock();
  const log: string[] = [];
  const note = (text: string) => log.push(`${clock.nowMs()} ${text}`);
  const attempt = async (name: string, signal: AbortSignal) => {
    note(name);
    const { afterMs, fails } = fates[name]!;
    await clock.sleep(afterMs, signal).catch((error) => {
      note(`${name} ended`);
      throw error;
    });
    if (fails) throw new Error(fails);
    return name;
  };
  const options = { delayMs: 250, clock, signal };
  const result = await clock.until(firstToSucceed(Object.keys(fates), attempt, options));
  return { result, log, elapsedMs: clock.nowMs() };
}

Deno.test("firstToSucceed(): the first that works needs no other", async () => {
  const { result, log } = await run({ a: { afterMs: 100 }, b: { afterMs: 1 } });
  strictEqual(result, "a");
  deepStrictEqual(log, ["0 a"]);
});

Deno.test("firstToSucceed(): a dead one costs its delay, and is ended", async () => {
  const { result, log } = await run({ a: { afterMs: 120_000 }, b: { afterMs: 20 } });
  strictEqual(result, "b");
  deepStrictEqual(log, ["0 a", "250 b", "270 a ended"]);
});

Deno.test("firstToSucceed(): one that fails makes way at once", async () => {
  const { result, elapsedMs } = await run({
    a: { afterMs: 10, fails: "refused" },
    b: { afterMs: 10, fails: "unreachable" },
    c: { afterMs: 10 },
  });
  strictEqual(result, "c");
  strictEqual(elapsedMs, 30);
});

Deno.test("firstToSucceed(): a slow first one may still win", async () => {
  const { result } = await run({ a: { afterMs: 400 }, b: { afterMs: 300 } });
  strictEqual(result, "a");
});

Deno.test("firstToSucceed() throws all failures in order, and the signal's reason", async () => {
  const fates = { a: { afterMs: 300, fails: "one" }, b: { afterMs: 1, fails: "two" } };
  await rejects(run(fates), (error: unknown) => {
    deepStrictEqual((error as AggregateError).errors.map(({ message }) => message), ["one", "two"]);
    return true;
  });
  await rejects(run(fates, AbortSignal.abort(new Error("stopped"))), /stopped/);
  await rejects(run({}), AggregateError);
});

Deno.test("firstToSucceed(): what succeeds too late is discarded", async () => {
  const clock = new VirtualClock();
  const discarded: string[] = [];
  /** Deaf to the signal. */
  const attempt = async (name: string) => {
    await clock.sleep(name === "a" ? 400 : 100);
    return name;
  };
  const { signal } = new AbortController();
  const discard = (name: string) => void discarded.push(name);
  const first = firstToSucceed(["a", "b"], attempt, { delayMs: 250, clock, signal, discard });
  strictEqual(await clock.until(first), "b");
  await clock.until(clock.sleep(1000));
  deepStrictEqual(discarded, ["a"]);
});
