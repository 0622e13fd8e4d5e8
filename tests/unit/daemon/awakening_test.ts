import { strictEqual } from "node:assert/strict";
import { watchForSleep } from "../../../lib/daemon/awakening.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

/** As if this host were suspended, at times: the wall clock goes on and the monotonic one does not. */
class SuspendedClock extends VirtualClock {
  suspendedMs = 0;

  override wallMs(): number {
    return super.wallMs() + this.suspendedMs;
  }
}

Deno.test("watchForSleep() tells of a suspended host once, and of nothing else", async () => {
  const clock = new SuspendedClock();
  const stop = new AbortController();
  let awoken = 0;
  const watching = watchForSleep(clock, () => awoken++, stop.signal);
  const pass = (ms: number) => clock.until(clock.sleep(ms));
  await pass(60_500);
  strictEqual(awoken, 0);
  for (const [jumpMs, expected] of [[3_000, 0], [8_000, 1], [-100_000, 1], [40_000, 2]] as const) {
    clock.suspendedMs += jumpMs;
    await pass(10_000);
    strictEqual(awoken, expected, `the wall clock moved by ${jumpMs} ms`);
  }
  stop.abort();
  await watching;
});
