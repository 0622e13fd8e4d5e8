/** What is said of a coordinator that is away. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { Outage } from "../../../lib/daemon/outage.ts";
import { MemoryLog, seededRandom } from "../../fakes/world.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

Deno.test("an outage is told once, and again after 1, 10 and 60 minutes, with since when", async () => {
  const clock = new VirtualClock();
  const log = new MemoryLog();
  const outage = new Outage({ clock, random: seededRandom(1), log });
  const startMs = clock.nowMs();
  const since = new Date(clock.wallMs()).toISOString();
  while (clock.nowMs() - startMs < 3 * 3_600_000) {
    const pauseMs = outage.failed("peers", new Error("connection refused"));
    await clock.until(clock.sleep(pauseMs));
  }
  strictEqual(log.of("coordinator does not answer, trying again").length, 1);
  const still = log.of("coordinator still away").filter(({ level }) => level === "warn");
  deepStrictEqual(still.map((line) => [line.since, line.error]), [
    [since, "connection refused"],
    [since, "connection refused"],
    [since, "connection refused"],
  ]);
  strictEqual(outage.end(), true);
  strictEqual(log.of("coordinator is back").length, 1);
  strictEqual(outage.current, undefined);
});
