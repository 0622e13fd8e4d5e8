/** Whether data gets through a link is asked once, and again for as long as it does not. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { parseIp } from "../../../lib/addr.ts";
import { InnerChecks } from "../../../lib/daemon/inner_checks.ts";
import { silentLog } from "../../../lib/edges.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const BOB = "ab".repeat(32) as NodeKey;
const LINK = { name: "bob", ip: parseIp("100.64.0.2"), ifname: "gretun0" };
const HOUR_MS = 3_600_000;

function world() {
  const clock = new VirtualClock();
  const said: string[] = [];
  const at = {
    clock,
    said,
    pings: 0,
    answers: true,
    pathMs: 20 as number | undefined,
    pathPings: 0,
    /** A ping without an answer is known to have none after this. */
    waitMs: 0,
    /** Every so many of the path's pings are lost. */
    lossEvery: Infinity,
    fails: false,
  };
  const checks = new InnerChecks({
    ping: async () => {
      at.pings++;
      if (at.fails) throw new Error("no such device");
      if (at.answers) return 1;
      await clock.sleep(at.waitMs);
    },
    pingPath: () => Promise.resolve(++at.pathPings % at.lossEvery === 0 ? undefined : at.pathMs),
    clock,
    log: {
      ...silentLog,
      warn: (message, fields) => said.push(`${message}: ${fields?.hint}`),
      info: (message) => said.push(message),
    },
  });
  return Object.assign(at, { checks });
}

type World = ReturnType<typeof world>;
const pass = ({ clock }: World, ms: number) => clock.until(clock.sleep(ms));

Deno.test("a link that data gets through costs one ping, and nothing is said", async () => {
  const at = world();
  at.checks.start(BOB, LINK);
  await pass(at, HOUR_MS);
  deepStrictEqual([at.pings, at.said, at.checks.isSilent(BOB)], [1, [], false]);
});

Deno.test("a link that nothing comes out of is told once, and asked again each minute", async () => {
  const at = world();
  at.answers = false;
  at.checks.start(BOB, LINK);
  await pass(at, 5_000);
  strictEqual(at.checks.isSilent(BOB), true);
  match(at.said.join(), /^path works, but pings in the tunnel are not answered: A firewall /);
  await pass(at, HOUR_MS);
  strictEqual(at.said.length, 1);
  strictEqual(at.pings, 5 * 61);
  at.answers = true;
  await pass(at, HOUR_MS);
  deepStrictEqual([at.pings, at.said.at(-1), at.checks.isSilent(BOB)], [
    5 * 61 + 1,
    "pings in the tunnel are answered",
    false,
  ]);
});

Deno.test("the verdict of a silent link waits for its last ping, not for one after the other", async () => {
  const at = world();
  Object.assign(at, { answers: false, waitMs: 3_000 });
  at.checks.start(BOB, LINK);
  await pass(at, 7_900);
  deepStrictEqual([at.pings, at.checks.isSilent(BOB)], [5, false]);
  await pass(at, 200);
  strictEqual(at.checks.isSilent(BOB), true);
});

Deno.test("data that is not answered has the link asked again, once a minute at most", async () => {
  const at = world();
  at.checks.start(BOB, LINK);
  await pass(at, HOUR_MS);
  for (let i = 0; i < 100; i++) {
    at.checks.doubt(BOB, LINK);
    await pass(at, 6_000);
  }
  deepStrictEqual([at.pings, at.said], [11, []]);
  at.answers = false;
  at.checks.doubt(BOB, LINK);
  await pass(at, 1);
  strictEqual(at.checks.isSilent(BOB), true);
  at.checks.doubt(BOB, LINK);
  await pass(at, 1);
  strictEqual(at.pings, 16);
  at.answers = true;
  await pass(at, 60_000);
  deepStrictEqual([at.checks.isSilent(BOB), at.said.length], [false, 2]);
});

Deno.test("a path that is dead, slow or lossy is no finding, nor a link that cannot be asked", async () => {
  const cases: Partial<World>[] = [
    { answers: false, pathMs: undefined },
    { answers: false, pathMs: 1_500 },
    { answers: false, lossEvery: 5 },
    { fails: true },
  ];
  for (const change of cases) {
    const at: World = Object.assign(world(), change);
    at.checks.start(BOB, LINK);
    await pass(at, HOUR_MS);
    deepStrictEqual([at.said, at.checks.isSilent(BOB)], [[], false]);
    at.checks.stop(BOB);
  }
});

Deno.test("a link that is set anew is asked anew; one that is gone is not", async () => {
  const at = world();
  at.checks.start(BOB, LINK);
  at.checks.start(BOB, LINK);
  await pass(at, HOUR_MS);
  strictEqual(at.pings, 1);
  at.checks.start(BOB, LINK);
  at.checks.stop(BOB);
  await pass(at, HOUR_MS);
  strictEqual(at.pings, 1);
  at.answers = false;
  at.checks.start(BOB, LINK);
  await pass(at, 10_000);
  at.checks[Symbol.dispose]();
  const { pings } = at;
  await pass(at, HOUR_MS);
  deepStrictEqual([at.pings, at.checks.isSilent(BOB)], [pings, false]);
});
