/** The reducers of hub and spoke, in virtual time; then both together over a lossy line. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import {
  type HubClient,
  type HubClientEffect,
  type HubClientEvent,
  newHubClient,
  nextHubClientTickMs,
  stepHubClient,
} from "../../../lib/hub/hub_policy.ts";
import {
  newSpoke,
  nextSpokeTickMs,
  type Spoke,
  type SpokeEvent,
  stepSpoke,
} from "../../../lib/hub/spoke/spoke_policy.ts";

const A = parseEndpoint("198.51.100.1:40000");
const B = parseEndpoint("198.51.100.1:40001");

function runHub(limits: { idleMs: number; lifetimeMs: number }, events: HubClientEvent[]) {
  let client: HubClient = newHubClient(limits);
  const all: HubClientEffect[] = [];
  for (const event of events) {
    const [next, effects] = stepHubClient(client, event);
    client = next;
    all.push(...effects);
  }
  return { client, effects: all };
}

const authenticated = (nowMs: number, from = A) =>
  ({ kind: "authenticated", nowMs, from }) as const;
const LIMITS = { idleMs: 100, lifetimeMs: 0 };
const HUB_CASES: [string, { idleMs: number; lifetimeMs: number }, HubClientEvent[], string[]][] = [
  ["first authentication", LIMITS, [authenticated(0)], ["new"]],
  ["again from there", LIMITS, [authenticated(0), authenticated(9)], ["new", "renewed"]],
  ["from elsewhere", LIMITS, [authenticated(0), authenticated(9, B)], ["new", "moved"]],
  ["and back", LIMITS, [authenticated(0), authenticated(9, B), authenticated(10)], [
    ...["new", "moved", "moved"],
  ]],
  [
    "silence",
    LIMITS,
    [authenticated(0), { kind: "tick", nowMs: 99 }, { kind: "tick", nowMs: 100 }],
    [
      ...["new", "silent"],
    ],
  ],
  ["a sign of life", LIMITS, [
    authenticated(0),
    { kind: "heard", nowMs: 50 },
    { kind: "tick", nowMs: 149 },
  ], ["new"]],
  ["for ever", { idleMs: 0, lifetimeMs: 0 }, [authenticated(0), { kind: "tick", nowMs: 1e9 }], [
    "new",
  ]],
  ["too old in spite of life", { idleMs: 100, lifetimeMs: 120 }, [
    authenticated(0),
    { kind: "heard", nowMs: 90 },
    { kind: "tick", nowMs: 120 },
  ], ["new", "expired"]],
  ["good-bye, and hello", LIMITS, [authenticated(0), { kind: "bye" }, authenticated(5)], [
    ...["new", "bye", "new"],
  ]],
  ["revoked", LIMITS, [authenticated(0), { kind: "revoked" }, { kind: "revoked" }], [
    "new",
    "revoked",
  ]],
  ["revoked before it came", LIMITS, [{ kind: "revoked" }, { kind: "bye" }], []],
  ["link refused", LIMITS, [authenticated(0), { kind: "link-failed" }, authenticated(1)], [
    ...["new", "link-failed", "new"],
  ]],
  ["adopted, authenticates", LIMITS, [
    { kind: "adopted", nowMs: 0, endpoint: A },
    authenticated(9),
  ], ["renewed"]],
  ["adopted, silent", LIMITS, [
    { kind: "adopted", nowMs: 0, endpoint: A },
    { kind: "tick", nowMs: 100 },
  ], ["silent"]],
];
for (const [name, limits, events, expected] of HUB_CASES) {
  Deno.test(`hub's client: ${name}`, () => {
    const { effects } = runHub(limits, events);
    const words = effects.map((e) => e.kind === "set-link" ? e.change : e.reason);
    deepStrictEqual(words, expected);
  });
}

Deno.test("hub's client: waits only while it has a link", () => {
  strictEqual(nextHubClientTickMs(newHubClient(LIMITS)), Infinity);
  strictEqual(nextHubClientTickMs(runHub(LIMITS, [authenticated(7)]).client), 107);
  const both = runHub({ idleMs: 100, lifetimeMs: 50 }, [authenticated(7)]).client;
  strictEqual(nextHubClientTickMs(both), 57);
});

// --- spoke

/** Runs a spoke against `hub`, which answers what is sent, in virtual time. */
class SpokeRun {
  spoke: Spoke = newSpoke(1);
  nowMs = 0;
  readonly sent: string[] = [];
  readonly times: number[] = [];

  event(event: { kind: SpokeEvent["kind"]; [field: string]: unknown }): void {
    const [next, effects] = stepSpoke(this.spoke, { ...event, nowMs: this.nowMs } as SpokeEvent);
    this.spoke = next;
    for (const effect of effects) {
      if (effect.kind === "state-changed") continue;
      this.sent.push(effect.kind);
      this.times.push(this.nowMs);
    }
  }

  until(endMs: number, answer: (effect: string) => void = () => {}): void {
    let seen = this.sent.length;
    while (nextSpokeTickMs(this.spoke) <= endMs) {
      this.nowMs = Math.max(this.nowMs, nextSpokeTickMs(this.spoke));
      this.event({ kind: "tick" });
      for (; seen < this.sent.length; seen++) answer(this.sent[seen]!);
    }
    this.nowMs = endMs;
  }

  connect(): this {
    this.event({ kind: "start" });
    this.event({ kind: "challenge" });
    this.event({ kind: "welcome", keepaliveMs: 25_000, reauthMs: 3_600_000 });
    return this;
  }
}

Deno.test("spoke: hello, challenge, auth, welcome; then a keepalive every 25 s", () => {
  const run = new SpokeRun().connect();
  strictEqual(run.spoke.state, "up");
  run.until(100_000, (effect) => {
    if (effect === "send-keepalive") run.event({ kind: "alive", moved: false });
  });
  deepStrictEqual(run.sent, ["send-hello", "send-auth", ...Array(4).fill("send-keepalive")]);
  deepStrictEqual(run.times.slice(2), [25_000, 50_000, 75_000, 100_000]);
});

Deno.test("spoke: a hub that does not answer is asked with growing pauses, for ever", () => {
  const run = new SpokeRun();
  run.event({ kind: "start" });
  run.until(120_000);
  deepStrictEqual(run.times.slice(0, 8), [0, 400, 1200, 2800, 6000, 12_400, 25_200, 40_200]);
  ok(run.sent.every((effect) => effect === "send-hello"));
  strictEqual(run.spoke.state, "connecting");
  const many = new SpokeRun();
  many.spoke = { ...many.spoke, tries: 5000, waiting: "challenge", nextMs: 1 };
  many.until(1);
  strictEqual(many.spoke.nextMs, 15_001);
});

Deno.test("spoke: lost keepalives are repeated fast, then a new session is asked for", () => {
  const run = new SpokeRun().connect();
  run.until(30_000);
  deepStrictEqual(run.sent.slice(2, 6), [...Array(3).fill("send-keepalive"), "send-hello"]);
  deepStrictEqual(run.times.slice(2, 6), [25_000, 25_700, 26_400, 27_100]);
  strictEqual(run.spoke.state, "lost");
  run.event({ kind: "challenge" });
  run.event({ kind: "welcome", keepaliveMs: 25_000, reauthMs: 3_600_000 });
  strictEqual(run.spoke.state, "up");
});

for (const kind of ["moved", "reauth"] as const) {
  Deno.test(`spoke: ${kind} asks for a new session at once and keeps the old one`, () => {
    const run = new SpokeRun().connect();
    run.until(5000);
    run.event({ kind });
    strictEqual(run.sent.at(-1), "send-hello");
    strictEqual(run.spoke.hasSession, true);
    strictEqual(run.spoke.state, "up");
    run.event({ kind });
    strictEqual(run.sent.length, 3, "the second of two within 100 ms waits");
    run.until(5100);
    strictEqual(run.sent.length, 4);
  });
}

Deno.test("spoke: seen elsewhere by the hub, or unknown to it: a new session", () => {
  const moved = new SpokeRun().connect();
  moved.until(1000);
  moved.event({ kind: "alive", moved: true });
  strictEqual(moved.sent.at(-1), "send-hello");
  const reset = new SpokeRun().connect();
  reset.until(1000);
  reset.event({ kind: "reset" });
  deepStrictEqual([reset.sent.at(-1), reset.spoke.state], ["send-hello", "lost"]);
});

Deno.test("spoke: authenticates again in time", () => {
  const run = new SpokeRun();
  run.event({ kind: "start" });
  run.event({ kind: "challenge" });
  run.event({ kind: "welcome", keepaliveMs: 0, reauthMs: 60_000 });
  run.until(60_000);
  deepStrictEqual([run.sent.at(-1), run.times.at(-1)], ["send-hello", 60_000]);
});

Deno.test("spoke: what nobody asked for changes nothing", () => {
  const run = new SpokeRun();
  run.event({ kind: "challenge" });
  run.event({ kind: "alive", moved: true });
  run.event({ kind: "reset" });
  deepStrictEqual(run.sent, []);
  run.event({ kind: "start" });
  run.event({ kind: "challenge" });
  run.event({ kind: "challenge" });
  deepStrictEqual(run.sent, ["send-hello", "send-auth"], "one auth for one hello");
});

Deno.test("spoke: refused, it waits before it asks again", () => {
  const run = new SpokeRun();
  run.event({ kind: "start" });
  run.event({ kind: "challenge" });
  run.event({ kind: "refused" });
  run.until(14_999);
  strictEqual(run.sent.length, 2);
  run.until(15_000);
  strictEqual(run.sent.at(-1), "send-hello");
});

Deno.test("spoke: a hub that is too busy to welcome it is asked less and less often", () => {
  const run = new SpokeRun();
  const answer = (effect: string) => {
    if (effect === "send-hello") run.event({ kind: "challenge" });
  };
  run.event({ kind: "start" });
  run.event({ kind: "challenge" });
  run.until(60_000, answer);
  const auths = run.times.filter((_, i) => run.sent[i] === "send-auth");
  deepStrictEqual(auths, [0, 2_000, 6_000, 14_000, 29_000, 44_000, 59_000]);
  run.event({ kind: "welcome", keepaliveMs: 25_000, reauthMs: 3_600_000 });
  strictEqual(run.spoke.authTries, 0);
});

Deno.test("spoke: waits longer for the welcome, then begins again; a late one is taken", () => {
  const run = new SpokeRun();
  run.event({ kind: "start" });
  run.event({ kind: "challenge" });
  run.until(1999);
  deepStrictEqual(run.sent, ["send-hello", "send-auth"]);
  run.until(2000);
  strictEqual(run.sent.at(-1), "send-hello");
  run.event({ kind: "welcome", keepaliveMs: 25_000, reauthMs: 3_600_000 });
  deepStrictEqual([run.spoke.state, run.spoke.waiting], ["up", "nothing"]);
});
