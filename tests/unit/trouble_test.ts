import { deepStrictEqual } from "node:assert/strict";
import { Trouble } from "../../lib/trouble.ts";
import { VirtualClock } from "../fakes/virtual_clock.ts";

Deno.test("Trouble tells that it is there, and after 1, 10 and 60 minutes that it still is", async () => {
  const clock = new VirtualClock();
  const since = new Date(clock.wallMs()).toISOString();
  const trouble = new Trouble(clock);
  const told: [minutes: number, news: string][] = [];
  for (let minutes = 0; minutes <= 180; minutes++) {
    const news = trouble.news();
    if (news) told.push([minutes, news]);
    await clock.until(clock.sleep(60_000));
  }
  deepStrictEqual(told, [[0, "first"], [1, "still"], [10, "still"], [60, "still"]]);
  deepStrictEqual(trouble.since, since);
});
