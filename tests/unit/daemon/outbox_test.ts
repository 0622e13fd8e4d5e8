import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { Outbox } from "../../../lib/daemon/outbox.ts";
import type { DiscoKey } from "../../../lib/keys.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const key = (index: number) => `${index}`.padStart(64, "0") as DiscoKey;

Deno.test("Outbox: three calls at a time, one peer's turn after the other's, the newest of each", async () => {
  const clock = new VirtualClock();
  const posted: [DiscoKey, number][] = [];
  let [underWay, most] = [0, 0];
  const outbox = new Outbox(clock, async (to, sealed) => {
    posted.push([to, sealed[0]!]);
    most = Math.max(most, ++underWay);
    await clock.sleep(20);
    underWay--;
  });
  for (let i = 0; i < 100; i++) outbox.send(key(i), Uint8Array.of(0));
  for (let message = 1; message <= 6; message++) outbox.send(key(99), Uint8Array.of(message));
  await clock.until(clock.sleep(1_000));
  strictEqual(most, 3);
  const others = Array.from({ length: 99 }, (_, i) => key(i));
  deepStrictEqual(posted.slice(0, 99).map(([to]) => to), others);
  deepStrictEqual(posted.slice(99), [3, 4, 5, 6].map((message) => [key(99), message]));
});

Deno.test("Outbox: calls that hang do not keep the others for long", async () => {
  const clock = new VirtualClock();
  let posted = 0;
  const outbox = new Outbox(clock, () => {
    posted++;
    return new Promise(() => {});
  });
  for (let i = 0; i < 12; i++) outbox.send(key(i), Uint8Array.of(0));
  await clock.until(clock.sleep(1_000));
  strictEqual(posted, 3);
  await clock.until(clock.sleep(7_000));
  strictEqual(posted, 12);
});
