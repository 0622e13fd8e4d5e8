/** Whose ports are guessed and how, and guessing between two nodes behind simulated NATs. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  ATTEMPT_MS,
  GUESS_AFTER_MS,
  guessRole,
  IN_STEP,
  isAsker,
  isHardMapping,
  nextPorts,
  type OuterPorts,
  outerPorts,
  pauseMs,
  pingsDue,
  portDelta,
  PROBES,
  randomPorts,
  walk,
  WINDOW,
} from "../../../lib/peer/hard_nat.ts";
import { MAX_REFLEXIVE } from "../../../lib/peer/timing.ts";
import { equalPaths, formatPath } from "../../../lib/peer/path_address.ts";
import { parseEndpoint } from "../../../lib/addr.ts";
import { systemRandom } from "../../../lib/edges.ts";

const SAMPLES: [name: string, ports: number[], delta: number | undefined][] = [
  ["one after the other", [40_000, 40_001, 40_002, 40_003], 1],
  ["downwards", [40_003, 40_002, 40_001], -1],
  ["every second one", [40_000, 40_002, 40_004], 2],
  ["others take some in between", [40_000, 40_001, 40_005, 40_006], 1],
  ["at random", [1_976, 38_172, 20_111, 52_000], undefined],
  ["up and down", [40_000, 40_002, 40_001], undefined],
  ["the same twice", [40_000, 40_000, 40_001], undefined],
  ["far apart", [40_000, 40_100, 40_200], undefined],
  ["too few", [40_000, 40_001], undefined],
  ["none", [], undefined],
];
for (const [name, ports, delta] of SAMPLES) {
  Deno.test(`portDelta() of ports ${name}`, () => strictEqual(portDelta(ports), delta));
}

Deno.test("isHardMapping() is undefined where nothing is known", () => {
  strictEqual(isHardMapping("unknown"), undefined);
  strictEqual(isHardMapping("endpoint-independent"), false);
  strictEqual(isHardMapping("endpoint-independent or address-dependent"), false);
  strictEqual(isHardMapping("address-dependent"), true);
  strictEqual(isHardMapping("address-and-port-dependent"), true);
});

Deno.test("of each pair that can meet by guessing exactly one side asks, and both know their part", () => {
  const kinds: OuterPorts[] = ["one", "sequential", "random"];
  const meeting = new Set<string>();
  for (const a of kinds) {
    for (const b of kinds) {
      const [roleA, roleB] = [guessRole(a, b), guessRole(b, a)];
      strictEqual(roleA === undefined, roleB === undefined);
      if (!roleA || !roleB) continue;
      meeting.add([a, b].sort().join("-"));
      strictEqual(roleA === "guessed", roleB === "guess");
      for (const controlling of [true, false]) {
        ok(isAsker(roleA, controlling) !== isAsker(roleB, !controlling), `${a} and ${b}`);
      }
    }
  }
  deepStrictEqual([...meeting].sort(), [
    "one-one",
    "one-random",
    "one-sequential",
    "sequential-sequential",
  ]);
  strictEqual(outerPorts({ mapping: "easy" }), "one");
  strictEqual(outerPorts({ mapping: "hard", portDelta: 1 }), "sequential");
  strictEqual(outerPorts({ mapping: "hard" }), "random");
});

Deno.test("nextPorts() gives ports that exist", () => {
  deepStrictEqual(nextPorts({ port: 40_000, delta: 1 }).slice(0, 3), [40_001, 40_002, 40_003]);
  deepStrictEqual(nextPorts({ port: 40_000, delta: -2 }).slice(0, 2), [39_998, 39_996]);
  strictEqual(nextPorts({ port: 40_000, delta: 1 }).length, WINDOW);
  deepStrictEqual(nextPorts({ port: 65_534, delta: 1 }), [65_535]);
  deepStrictEqual(nextPorts({ port: 1, delta: -1 }), []);
  deepStrictEqual(new Set(nextPorts({ port: 40_000, delta: 0 })), new Set([40_000]));
});

/**
 * Which of a side's mappings the other side's mapping leads to and back: `otherA` and `otherB` ports
 * have been taken by others since the last one was seen.
 */
function meetings(round: number, otherA: number, otherB: number): number {
  const [a, b] = [{ port: 40_000, delta: 1 }, { port: 50_000, delta: 2 }];
  const mappings = (own: typeof a, others: number, targets: number[]) =>
    new Map(targets.map((target, i) => [target, own.port + own.delta * (others + i + 1)]));
  const ofA = mappings(a, otherA, walk(b, { round, isAsker: true }));
  const ofB = mappings(b, otherB, walk(a, { round, isAsker: false }));
  return [...ofA].filter(([portOfB, portOfA]) => ofB.get(portOfA) === portOfB).length;
}

Deno.test("walk() leads every mapping to its counterpart when nothing came in between", () => {
  strictEqual(meetings(0, 0, 0), IN_STEP);
  strictEqual(meetings(2, 0, 0), IN_STEP);
  ok(IN_STEP < MAX_REFLEXIVE, "the reducer keeps them all");
});

Deno.test("walk() meets within four rounds whatever came in between", () => {
  for (let otherA = 0; otherA < WINDOW / 2; otherA++) {
    for (let otherB = 0; otherB < WINDOW / 2; otherB++) {
      const met = [0, 1, 2, 3].some((round) => meetings(round, otherA, otherB) > 0);
      ok(met, `${otherA} and ${otherB}`);
    }
  }
});

Deno.test("randomPorts() are different ones, all over the range", () => {
  const ports = randomPorts(PROBES, systemRandom);
  strictEqual(new Set(ports).size, PROBES);
  ok(ports.every((port) => port >= 1024 && port <= 65_535));
  const mean = ports.reduce((a, b) => a + b) / PROBES;
  ok(Math.abs(mean - 33_280) < 5 * 18_600 / Math.sqrt(PROBES), `mean ${mean}`);
  const many = randomPorts(16_384, systemRandom);
  strictEqual(new Set(many).size, 16_384);
});

Deno.test("pingsDue(): a thousand within five seconds, evenly; ports in order one by one", () => {
  strictEqual(pingsDue("random", PROBES, 0), 0);
  strictEqual(pingsDue("random", PROBES, 1_000), 240);
  strictEqual(pingsDue("random", PROBES, 5_000), PROBES);
  strictEqual(pingsDue("sequential", WINDOW, 0), 1);
  strictEqual(pingsDue("sequential", WINDOW, 100), 11);
  strictEqual(pingsDue("sequential", WINDOW, 5_000), WINDOW);
});

Deno.test("pauses grow, and a thousand pings are not sent again within a minute", () => {
  for (const outcome of ["unanswered", "failed"] as const) {
    for (const kind of ["one", "sequential", "random"] as const) {
      // Before, one lasts until the first minute of a search is over.
      const pauses = [3, 4, 5, 10, 1000].map((times) => pauseMs(outcome, kind, times));
      deepStrictEqual(pauses, [...pauses].sort((a, b) => a - b));
    }
  }
  ok(pauseMs("failed", "random", 1) >= 60_000);
  const thirdMs = pauseMs("failed", "sequential", 1) + pauseMs("failed", "sequential", 2);
  ok(GUESS_AFTER_MS + 2 * ATTEMPT_MS.sequential + thirdMs > 60_000);
});

Deno.test("two paths differ by the port that packets leave from", () => {
  const main = parseEndpoint("192.0.2.1:7777");
  const extra = { ...main, localPort: 40_123 };
  ok(equalPaths(extra, { ...extra }) && equalPaths(main, { ...main }) && !equalPaths(main, extra));
  strictEqual(formatPath(main), "192.0.2.1:7777");
  strictEqual(formatPath(extra), "192.0.2.1:7777 from port 40123");
});
