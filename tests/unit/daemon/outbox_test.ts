import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { Outbox } from "../../../lib/daemon/outbox.ts";
import type { DiscoKey } from "../../../lib/keys.ts";

const key = (index: number) => `${index}`.padStart(64, "0") as DiscoKey;
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

Deno.test("Outbox: 16 calls at a time, one peer's turn after the other's, the newest of each", async () => {
  const posted: [DiscoKey, number][] = [];
  let done: (() => void)[] = [];
  const outbox = new Outbox((to, sealed) => {
    posted.push([to, sealed[0]!]);
    return new Promise((resolve) => done.push(resolve));
  });
  for (let i = 0; i < 100; i++) outbox.send(key(i), Uint8Array.of(0));
  for (let message = 1; message <= 6; message++) outbox.send(key(99), Uint8Array.of(message));
  strictEqual(posted.length, 16);
  while (done.length > 0) {
    const finished = done;
    done = [];
    for (const resolve of finished) resolve();
    await settled();
    strictEqual(done.length <= 16, true);
  }
  deepStrictEqual(
    posted.slice(0, 99).map(([to]) => to),
    Array.from({ length: 99 }, (_, i) => key(i)),
  );
  deepStrictEqual(posted.slice(99), [3, 4, 5, 6].map((message) => [key(99), message]));
});
