/** The hole-punch policy under virtual time: two reducers joined by a simulated network. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type Endpoint, formatEndpoint, parseEndpoint } from "../../../lib/addr.ts";
import { newPeer, step } from "../../../lib/peer/reducer.ts";
import { type Peer, type PeerEffect, type PeerEvent } from "../../../lib/peer/state.ts";
import {
  BURSTS_MS,
  BUSY_PATH_DEAD_MS,
  FIRST_INVITE_MS,
  IPV6_HEAD_START_MS,
  KEEPALIVE_MS,
  MAX_REFLEXIVE,
  nextTickMs,
  OPENER_HOLD_MS,
  PATH_DEAD_MS,
  RELAY_AFTER_MS,
  RELAY_KEPT_MS,
  RELAY_RETRY_MS,
  RELAYED_PAUSE_MS,
  REMADE_LINK_HOLD_MS,
  SILENCE_MS,
} from "../../../lib/peer/timing.ts";

const PUBLIC_A = parseEndpoint("198.51.100.1:7777");
const PUBLIC_B = parseEndpoint("198.51.100.2:7777");
const RELAY = parseEndpoint("203.0.113.9:50001");
const IPV6_B = parseEndpoint("[2001:db8::2]:7777");
const LAN_B = parseEndpoint("10.0.0.2:7777");
const [FIRST_BURST_MS = []] = BURSTS_MS;
const TX = new Uint8Array(12);

/** Feeds events and ticks to one peer, and keeps every effect with its time. */
class Bench {
  peer: Peer;
  nowMs = 0;
  readonly log: { atMs: number; effect: PeerEffect }[] = [];
  /** Whether set-link succeeds. */
  linkWorks = true;

  constructor(controlling: boolean, adopted?: Endpoint) {
    this.peer = newPeer({ controlling, nowMs: 0, ...(adopted ? { adopted } : {}) });
  }

  give(event: PeerEvent): void {
    this.nowMs = event.nowMs;
    const [peer, effects] = step(this.peer, event);
    this.peer = peer;
    for (const effect of effects) {
      this.log.push({ atMs: this.nowMs, effect });
      if (effect.kind === "set-link") {
        const kind = this.linkWorks ? "link-set" : "link-failed";
        this.give({ kind, nowMs: this.nowMs, endpoint: effect.endpoint });
      }
    }
  }

  runUntil(endMs: number): void {
    for (let due = nextTickMs(this.peer); due <= endMs; due = nextTickMs(this.peer)) {
      this.give({ kind: "tick", nowMs: Math.max(due, this.nowMs) });
    }
    this.nowMs = endMs;
  }

  times(kind: PeerEffect["kind"]): number[] {
    return this.log.filter(({ effect }) => effect.kind === kind).map(({ atMs }) => atMs);
  }

  pings(to: Endpoint): number[] {
    return this.log.filter(({ effect }) =>
      effect.kind === "send-ping" && formatEndpoint(effect.to) === formatEndpoint(to)
    ).map(({ atMs }) => atMs);
  }

  count(kind: PeerEffect["kind"]): number {
    return this.log.filter(({ effect }) => effect.kind === kind).length;
  }
}

function directBench(controlling = true): Bench {
  const bench = new Bench(controlling);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.give({ kind: "pong", nowMs: 20, from: PUBLIC_B, rttMs: 20 });
  strictEqual(bench.peer.state, "direct");
  return bench;
}

Deno.test("step() pings a candidate in the own network in the documented burst, at once", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [LAN_B] });
  bench.runUntil(4_900);
  deepStrictEqual(bench.pings(LAN_B), [...FIRST_BURST_MS]);
  strictEqual(bench.count("send-opener"), 0);
  strictEqual(bench.peer.state, "punching");
});

Deno.test("step() sends a public address an opener, and the burst after a quarter second", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.runUntil(4_900);
  deepStrictEqual(bench.times("send-opener"), [0]);
  const burst = FIRST_BURST_MS.map((ms) => ms + OPENER_HOLD_MS).filter((ms) => ms < 4_900);
  deepStrictEqual(bench.pings(PUBLIC_B), burst);
});

Deno.test("step() pings ever less where nothing is answered, and in full again where that may have changed", () => {
  const bench = new Bench(true);
  const pingsBetween = (fromMs: number, toMs: number) =>
    bench.pings(LAN_B).filter((ms) => ms >= fromMs && ms < toMs).length;
  bench.give({ kind: "listed", nowMs: 0, endpoints: [LAN_B] });
  bench.runUntil(80_000);
  const rounds = [0, 5_000, 15_000, 35_000, 75_000];
  const counts = rounds.slice(1).map((toMs, i) => pingsBetween(rounds[i]!, toMs));
  deepStrictEqual(counts, [9, 6, 3, 2]);
  bench.give({ kind: "moved", nowMs: 81_000 });
  bench.runUntil(86_000);
  strictEqual(pingsBetween(81_000, 86_000), 9);
});

Deno.test("step() pings each of many endpoints less", () => {
  const bench = new Bench(true);
  const endpoints = Array.from({ length: 6 }, (_, i) => parseEndpoint(`10.0.0.${i + 2}:7777`));
  bench.give({ kind: "listed", nowMs: 0, endpoints });
  bench.runUntil(4_900);
  for (const endpoint of endpoints) strictEqual(bench.pings(endpoint).length, 3);
});

Deno.test("step() leaves the path alone when it looks for a better one", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.give({ kind: "relay-open", nowMs: 1_000, endpoint: RELAY });
  bench.give({ kind: "pong", nowMs: 1_020, from: RELAY, rttMs: 20 });
  strictEqual(bench.peer.state, "relay");
  const before = bench.pings(RELAY).length;
  bench.runUntil(20_000);
  ok(bench.times("send-opener").length > 1);
  strictEqual(bench.pings(RELAY).length, before);
});

Deno.test("step() does not hold the burst back once the peer has shown itself", () => {
  const invited = new Bench(true);
  invited.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  invited.give({ kind: "call-me-maybe", nowMs: 30, endpoints: [PUBLIC_B] });
  strictEqual(invited.pings(PUBLIC_B)[0], 30);
  const pinged = new Bench(true);
  pinged.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  pinged.give({ kind: "ping", nowMs: 30, from: PUBLIC_B, txId: TX, nominating: false });
  strictEqual(pinged.pings(PUBLIC_B)[0], 30);
});

Deno.test("step() invites the peer even when it has no candidate", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [] });
  bench.runUntil(FIRST_INVITE_MS);
  strictEqual(bench.peer.state, "unknown");
  deepStrictEqual(bench.times("send-call-me-maybe"), [FIRST_INVITE_MS]);
});

Deno.test("step() keeps searching for ever, with pauses up to a minute", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.runUntil(3_600_000);
  strictEqual(bench.peer.state, "punching");
  const pings = bench.pings(PUBLIC_B);
  ok(pings.at(-1)! > 3_500_000, "still trying after an hour");
  const gaps = pings.slice(1).map((at, i) => at - pings[i]!);
  ok(Math.max(...gaps) <= 60_000, `largest gap ${Math.max(...gaps)}`);
  ok(pings.length < 600, `${pings.length} pings in an hour`);
});

Deno.test("step() opens what it hears of late before it pings it, and says so", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [LAN_B] });
  bench.runUntil(100);
  strictEqual(bench.count("send-call-me-maybe"), 1);
  bench.give({ kind: "listed", nowMs: 100, endpoints: [LAN_B, PUBLIC_B] });
  deepStrictEqual(bench.times("send-opener"), [100]);
  deepStrictEqual(bench.times("send-call-me-maybe"), [0, 100]);
  bench.runUntil(100 + OPENER_HOLD_MS);
  deepStrictEqual(bench.pings(PUBLIC_B), [100 + OPENER_HOLD_MS]);
  bench.give({ kind: "listed", nowMs: 400, endpoints: [PUBLIC_B, LAN_B] });
  strictEqual(bench.count("send-opener"), 1, "nothing is new");
});

Deno.test("step() does not invite a peer with whom it is direct to more of its endpoints", () => {
  const bench = directBench();
  const invitations = bench.count("send-call-me-maybe");
  bench.give({ kind: "listed", nowMs: 5_000, endpoints: [PUBLIC_B, PUBLIC_A] });
  bench.runUntil(6_000);
  strictEqual(bench.count("send-call-me-maybe"), invitations);
  ok(bench.pings(PUBLIC_A).length > 1);
});

Deno.test("step() becomes direct only after pong and link", () => {
  const bench = new Bench(true);
  bench.linkWorks = false;
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.give({ kind: "pong", nowMs: 20, from: PUBLIC_B, rttMs: 20 });
  strictEqual(bench.peer.state, "punching");
  bench.linkWorks = true;
  bench.runUntil(6_000);
  strictEqual(bench.peer.state, "direct");
  strictEqual(bench.count("set-link"), 2);
});

Deno.test("step() makes a link again that is gone, and tries on when that fails", () => {
  const bench = directBench();
  bench.give({ kind: "link-gone", nowMs: 1_000 });
  strictEqual(bench.count("set-link"), 2);
  deepStrictEqual(bench.peer.link, { kind: "set", endpoint: PUBLIC_B });
  bench.linkWorks = false;
  bench.give({ kind: "link-gone", nowMs: 2_000 });
  bench.linkWorks = true;
  bench.runUntil(8_000);
  strictEqual(bench.count("set-link"), 4);
  deepStrictEqual(bench.peer.link, { kind: "set", endpoint: PUBLIC_B });
  strictEqual(bench.peer.state, "direct");
});

Deno.test("step() begins with the path of an earlier run, and says direct when it answers", () => {
  for (const controlling of [true, false]) {
    const bench = new Bench(controlling, IPV6_B);
    bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B, IPV6_B] });
    const links = () =>
      bench.log.flatMap(({ effect }) => effect.kind === "set-link" ? [effect] : []);
    deepStrictEqual(links(), [{ kind: "set-link", endpoint: IPV6_B }]);
    strictEqual(bench.pings(IPV6_B)[0], 0);
    strictEqual(bench.peer.state, "punching");
    bench.give({ kind: "pong", nowMs: 20, from: PUBLIC_B, rttMs: 20 });
    bench.runUntil(300);
    strictEqual(bench.peer.state, "punching", "another path that works does not take over yet");
    bench.give({ kind: "pong", nowMs: 310, from: IPV6_B, rttMs: 10 });
    strictEqual(bench.peer.state, "direct");
    strictEqual(links().length, 1, "the link never went elsewhere");
  }
});

Deno.test("step() gives up the path of an earlier run like any that stops answering", () => {
  const bench = new Bench(true, PUBLIC_A);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.runUntil(PATH_DEAD_MS);
  deepStrictEqual(bench.times("path-lost"), [PATH_DEAD_MS]);
  bench.give({ kind: "pong", nowMs: PATH_DEAD_MS + 20, from: PUBLIC_B, rttMs: 20 });
  strictEqual(bench.peer.state, "direct");
});

Deno.test("step() makes no link that is gone while there is no path", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.give({ kind: "link-gone", nowMs: 1_000 });
  strictEqual(bench.count("set-link"), 0);
});

Deno.test("step() ignores a pong from an address that is no candidate", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.give({ kind: "pong", nowMs: 20, from: LAN_B, rttMs: 20 });
  strictEqual(bench.peer.path, undefined);
  strictEqual(bench.count("set-link"), 0);
});

Deno.test("step() answers a ping with a pong and a ping of its own, but moves nothing", () => {
  const bench = directBench();
  const links = bench.count("set-link");
  bench.give({ kind: "ping", nowMs: 1_000, from: PUBLIC_A, txId: TX, nominating: true });
  strictEqual(bench.count("send-pong"), 1);
  deepStrictEqual(bench.pings(PUBLIC_A), [1_000]);
  strictEqual(bench.count("set-link"), links);
  strictEqual(formatEndpoint(bench.peer.path!.endpoint), formatEndpoint(PUBLIC_B));
});

Deno.test("step() takes one address from two ports of ours for two paths", () => {
  const bench = new Bench(true);
  const extra = { ...PUBLIC_B, localPort: 40_123 };
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.give({ kind: "ping", nowMs: 10, from: extra, txId: TX, nominating: false });
  bench.give({ kind: "pong", nowMs: 20, from: extra, rttMs: 10 });
  strictEqual(bench.peer.state, "direct");
  deepStrictEqual(bench.peer.link, { kind: "set", endpoint: extra });
  bench.give({ kind: "pong", nowMs: 30, from: PUBLIC_B, rttMs: 10 });
  deepStrictEqual(bench.peer.path!.endpoint, extra, "the one is as good as the other");
  bench.runUntil(20 + KEEPALIVE_MS);
  const last = bench.log.findLast(({ effect }) => effect.kind === "send-ping")!;
  ok(last.effect.kind === "send-ping");
  deepStrictEqual(last.effect.to, extra, "kept alive from its own port");
});

Deno.test("step() on the controlling side replaces a public path by a LAN path", () => {
  const bench = directBench();
  bench.give({ kind: "listed", nowMs: 100, endpoints: [PUBLIC_B, LAN_B] });
  bench.give({ kind: "pong", nowMs: 110, from: LAN_B, rttMs: 1 });
  strictEqual(bench.peer.path!.endpoint, LAN_B);
  ok(bench.log.some(({ effect }) => effect.kind === "send-ping" && effect.nominating));
});

Deno.test("step() pings IPv6 before IPv4, and all anew when it is invited", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B, IPV6_B] });
  bench.give({ kind: "call-me-maybe", nowMs: 10, endpoints: [PUBLIC_B, IPV6_B] });
  const pings = bench.log.flatMap(({ atMs, effect }) =>
    effect.kind === "send-ping" ? [`${atMs} ${formatEndpoint(effect.to)}`] : []
  );
  const [ipv4, ipv6] = [PUBLIC_B, IPV6_B].map(formatEndpoint);
  deepStrictEqual(pings, [`0 ${ipv6}`, `10 ${ipv6}`, `10 ${ipv4}`]);
});

Deno.test("step() waits with a link over IPv4 for an answer over IPv6, not for long", () => {
  const setLinks = (answerMs: number, ipv6Ms?: number) => {
    const bench = new Bench(true);
    bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B, IPV6_B] });
    bench.runUntil(answerMs);
    bench.give({ kind: "pong", nowMs: answerMs, from: PUBLIC_B, rttMs: 20 });
    if (ipv6Ms !== undefined) {
      bench.runUntil(ipv6Ms);
      bench.give({ kind: "pong", nowMs: ipv6Ms, from: IPV6_B, rttMs: 20 });
    }
    bench.runUntil(answerMs + 1_000);
    return bench.log.flatMap(({ atMs, effect }) =>
      effect.kind === "set-link" ? [`${atMs} ${formatEndpoint(effect.endpoint)}`] : []
    );
  };
  const [ipv4, ipv6] = [PUBLIC_B, IPV6_B].map(formatEndpoint);
  deepStrictEqual(setLinks(300), [`${300 + IPV6_HEAD_START_MS} ${ipv4}`]);
  deepStrictEqual(setLinks(300, 320), [`320 ${ipv6}`]);
  deepStrictEqual(setLinks(300, 400), [`350 ${ipv4}`, `400 ${ipv6}`]);
  deepStrictEqual(setLinks(4_900), [`4900 ${ipv4}`], "IPv6 was tried in vain");
});

Deno.test("step() on the controlled side moves only to the nominated path", () => {
  const bench = directBench(false);
  bench.give({ kind: "listed", nowMs: 100, endpoints: [PUBLIC_B, LAN_B] });
  bench.give({ kind: "pong", nowMs: 110, from: LAN_B, rttMs: 1 });
  strictEqual(formatEndpoint(bench.peer.path!.endpoint), formatEndpoint(PUBLIC_B));
  bench.give({ kind: "ping", nowMs: 120, from: LAN_B, txId: TX, nominating: true });
  strictEqual(formatEndpoint(bench.peer.path!.endpoint), formatEndpoint(LAN_B));
});

Deno.test("step() looks at a path that was silent when the peer is heard from elsewhere", () => {
  const bench = directBench();
  const pingFromElsewhere = (nowMs: number) =>
    bench.give({ kind: "ping", nowMs, from: LAN_B, txId: TX, nominating: false });
  bench.runUntil(10_000); // its first burst is over
  pingFromElsewhere(10_000);
  bench.give({ kind: "pong", nowMs: 10_020, from: PUBLIC_B, rttMs: 20 });
  const pings = bench.pings(PUBLIC_B).length;
  pingFromElsewhere(10_020 + SILENCE_MS - 1);
  strictEqual(bench.pings(PUBLIC_B).length, pings);
  pingFromElsewhere(10_020 + SILENCE_MS);
  strictEqual(bench.pings(PUBLIC_B).length, pings + 1);
});

Deno.test("step() on the controlled side says so when another path takes over", () => {
  const bench = directBench(false);
  bench.give({ kind: "listed", nowMs: 1_000, endpoints: [PUBLIC_B, LAN_B] });
  bench.give({ kind: "ping", nowMs: 1_010, from: LAN_B, txId: TX, nominating: false });
  bench.give({ kind: "pong", nowMs: 1_020, from: LAN_B, rttMs: 1 });
  strictEqual(formatEndpoint(bench.peer.path!.endpoint), formatEndpoint(PUBLIC_B));
  const before = bench.pings(LAN_B).length;
  bench.runUntil(3_000); // the path stays silent
  strictEqual(formatEndpoint(bench.peer.path!.endpoint), formatEndpoint(LAN_B));
  strictEqual(bench.pings(LAN_B).length, before + 1);
});

Deno.test("step() keeps a path alive with a ping each 25 s", () => {
  const bench = directBench();
  bench.runUntil(KEEPALIVE_MS + 20);
  strictEqual(bench.pings(PUBLIC_B).at(-1), KEEPALIVE_MS + 20);
  bench.give({ kind: "pong", nowMs: bench.nowMs + 5, from: PUBLIC_B, rttMs: 5 });
  strictEqual(nextTickMs(bench.peer), 2 * KEEPALIVE_MS + 25);
});

Deno.test("step() finds a path dead, searches again and keeps the link", () => {
  const bench = directBench();
  bench.runUntil(KEEPALIVE_MS + 20 + PATH_DEAD_MS);
  strictEqual(bench.peer.state, "punching");
  strictEqual(bench.count("path-lost"), 1);
  strictEqual(bench.count("forget"), 0);
  bench.give({ kind: "pong", nowMs: bench.nowMs + 50, from: PUBLIC_B, rttMs: 5 });
  strictEqual(bench.peer.state, "direct");
});

/** Looks at the link's counters every half second, as the daemon does. */
function traffic(bench: Bench, fromMs: number, toMs: number, sent: boolean, received: boolean) {
  for (let nowMs = fromMs; nowMs <= toMs; nowMs += 500) {
    bench.runUntil(nowMs);
    bench.give({ kind: "traffic", nowMs, sent, received });
  }
}

Deno.test("step() finds a path dead within 3 s when data is sent and none comes back", () => {
  const bench = directBench();
  traffic(bench, 5_000, 10_000, true, true);
  traffic(bench, 10_500, 13_000, true, false);
  strictEqual(bench.peer.state, "punching");
  ok(bench.times("path-lost")[0]! <= 13_000);
});

Deno.test("step() sends no pings but keepalives while data goes both ways, or none does", () => {
  for (const flows of [true, false]) {
    const bench = directBench();
    bench.runUntil(5_000);
    const before = bench.count("send-ping");
    traffic(bench, 5_000, KEEPALIVE_MS - 1_000, flows, flows);
    strictEqual(bench.count("send-ping"), before, `flows ${flows}`);
  }
});

Deno.test("step() keeps a path that answers while data goes one way only", () => {
  const bench = directBench();
  for (let nowMs = 5_000; nowMs < 60_000; nowMs += 500) {
    traffic(bench, nowMs, nowMs, true, false);
    bench.runUntil(nowMs + 20);
    if (bench.peer.path!.verify) {
      bench.give({ kind: "pong", nowMs: nowMs + 20, from: PUBLIC_B, rttMs: 20 });
    }
  }
  strictEqual(bench.count("path-lost"), 0);
  ok(bench.count("send-ping") < 2 * 60_000 / SILENCE_MS, `${bench.count("send-ping")} pings`);
});

Deno.test("step() waits longer for the pong of a path on which data arrives", () => {
  const bench = directBench();
  const sinceMs = 20 + KEEPALIVE_MS;
  bench.runUntil(sinceMs);
  traffic(bench, sinceMs + 100, sinceMs + 4_100, true, true);
  strictEqual(bench.count("path-lost"), 0);
  bench.runUntil(sinceMs + BUSY_PATH_DEAD_MS);
  strictEqual(bench.count("path-lost"), 1);
});

Deno.test("step() verifies a path when data that came steadily has stopped", () => {
  const looks = (bench: Bench, fromMs: number, toMs: number, everyMs: number) => {
    for (let nowMs = fromMs; nowMs <= toMs; nowMs += everyMs) {
      bench.runUntil(nowMs);
      bench.give({ kind: "traffic", nowMs, sent: false, received: true });
    }
  };
  const bench = directBench();
  bench.runUntil(3_000);
  looks(bench, 5_000, 7_000, 1_000);
  bench.runUntil(10_000);
  strictEqual(bench.peer.path!.verify, undefined, "a packet now and then is not steady");
  looks(bench, 10_000, 12_000, 100);
  strictEqual(bench.peer.path!.verify, undefined);
  const lastMs = bench.nowMs;
  bench.runUntil(lastMs + SILENCE_MS);
  strictEqual(bench.pings(PUBLIC_B).at(-1), lastMs + SILENCE_MS);
  bench.give({ kind: "pong", nowMs: bench.nowMs + 20, from: PUBLIC_B, rttMs: 20 });
  const before = bench.count("send-ping");
  bench.runUntil(20_000);
  strictEqual(bench.count("send-ping"), before, "once");
});

Deno.test("step() verifies a path once for each silence, however soon the next one comes", () => {
  const bench = directBench();
  bench.runUntil(10_000);
  const before = bench.pings(PUBLIC_B).length;
  const data = (...timesMs: number[]) => {
    for (const nowMs of timesMs) {
      bench.give({ kind: "traffic", nowMs, sent: false, received: true });
    }
  };
  const answeredPing = (atMs: number) => {
    bench.runUntil(atMs);
    bench.give({ kind: "pong", nowMs: atMs + 20, from: PUBLIC_B, rttMs: 20 });
  };
  data(10_000, 10_100, 10_200);
  answeredPing(10_200 + SILENCE_MS);
  data(10_500);
  answeredPing(10_500 + 450);
  bench.runUntil(20_000);
  deepStrictEqual(bench.pings(PUBLIC_B).slice(before), [10_400, 10_950]);
});

Deno.test("step() doubts a path by the round trips of late, not by one that took long", () => {
  const doubtedAfterMs = (...rttsMs: number[]) => {
    const bench = directBench();
    for (const [i, rttMs] of rttsMs.entries()) {
      bench.give({ kind: "pong", nowMs: 1_000 + i, from: PUBLIC_B, rttMs });
    }
    bench.give({ kind: "traffic", nowMs: 5_000, sent: true, received: false });
    bench.runUntil(6_000);
    return bench.times("path-doubted")[0]! - 5_000;
  };
  strictEqual(doubtedAfterMs(), 100);
  strictEqual(doubtedAfterMs(200), 150);
  strictEqual(doubtedAfterMs(200, 200, 200, 200), 650);
});

Deno.test("step() doubts a silent path: both sides ask how they are seen, once each", () => {
  const bench = directBench();
  const invited = bench.count("send-call-me-maybe");
  traffic(bench, 5_000, 5_600, true, true);
  const sinceMs = 6_000;
  bench.give({ kind: "traffic", nowMs: sinceMs, sent: true, received: false });
  bench.runUntil(sinceMs + 100);
  deepStrictEqual(bench.times("path-doubted"), [sinceMs + 100]);
  strictEqual(bench.count("send-call-me-maybe"), invited + 1);
  bench.runUntil(sinceMs + 1_900);
  strictEqual(bench.count("path-doubted"), 1);
  strictEqual(bench.count("send-call-me-maybe"), invited + 1);
});

Deno.test("step() doubts a path on an invitation, and only while pings are overdue", () => {
  const invited = directBench();
  invited.give({ kind: "call-me-maybe", nowMs: 5_000, endpoints: [PUBLIC_B] });
  deepStrictEqual(invited.times("path-doubted"), [5_000]);
  const slow = new Bench(true);
  slow.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  slow.give({ kind: "pong", nowMs: 900, from: PUBLIC_B, rttMs: 800 });
  for (let nowMs = 2_000; nowMs < 20_000; nowMs += 800) {
    slow.give({ kind: "traffic", nowMs, sent: true, received: false });
    slow.runUntil(nowMs + 799);
    slow.give({ kind: "pong", nowMs: nowMs + 799, from: PUBLIC_B, rttMs: 800 });
  }
  strictEqual(slow.count("path-doubted"), 0);
});

Deno.test("step() verifies the path on every invitation, however soon it comes after another", () => {
  const bench = directBench();
  for (const nowMs of [5_000, 5_500]) {
    bench.give({ kind: "call-me-maybe", nowMs, endpoints: [PUBLIC_B] });
    strictEqual(bench.pings(PUBLIC_B).at(-1), nowMs);
    bench.give({ kind: "pong", nowMs: nowMs + 20, from: PUBLIC_B, rttMs: 20 });
    strictEqual(bench.peer.path!.verify, undefined);
  }
});

Deno.test("step() leaves a suspect path for a relay after a second, for another path that answers at once", () => {
  for (const other of [PUBLIC_A, RELAY]) {
    const bench = directBench(false);
    if (other === RELAY) bench.give({ kind: "relay-open", nowMs: 1_000, endpoint: RELAY });
    const ping = { kind: "ping", from: other, txId: TX, nominating: false } as const;
    bench.give({ ...ping, nowMs: 5_000 });
    bench.give({ kind: "pong", nowMs: 5_020, from: other, rttMs: 20 });
    bench.give({ kind: "pong", nowMs: 5_030, from: PUBLIC_B, rttMs: 20 });
    bench.give({ kind: "traffic", nowMs: 6_000, sent: true, received: false });
    bench.runUntil(6_119);
    strictEqual(bench.pings(other).at(-1), 6_100);
    bench.give({ kind: "pong", nowMs: 6_120, from: other, rttMs: 20 });
    deepStrictEqual(bench.peer.path!.endpoint, other === RELAY ? PUBLIC_B : other);
    bench.runUntil(7_300);
    deepStrictEqual(bench.peer.path!.endpoint, other);
  }
});

Deno.test("step() leaves a suspect path only for one that has answered a later ping", () => {
  const bench = directBench(false);
  bench.give({ kind: "ping", nowMs: 5_000, from: PUBLIC_A, txId: TX, nominating: false });
  bench.give({ kind: "pong", nowMs: 5_030, from: PUBLIC_B, rttMs: 20 });
  bench.give({ kind: "traffic", nowMs: 6_000, sent: true, received: false });
  bench.runUntil(6_140);
  bench.give({ kind: "pong", nowMs: 6_140, from: PUBLIC_A, rttMs: 200 });
  deepStrictEqual(bench.peer.path!.endpoint, PUBLIC_B);
  bench.give({ kind: "ping", nowMs: 6_141, from: PUBLIC_A, txId: TX, nominating: false });
  deepStrictEqual(bench.peer.path!.endpoint, PUBLIC_B);
  bench.give({ kind: "pong", nowMs: 6_145, from: PUBLIC_A, rttMs: 20 });
  deepStrictEqual(bench.peer.path!.endpoint, PUBLIC_A);
});

Deno.test("step() leaves a suspect path over IPv6 for IPv4 after a second: a busy peer answers both late", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [IPV6_B, PUBLIC_B] });
  bench.give({ kind: "pong", nowMs: 20, from: IPV6_B, rttMs: 20 });
  bench.give({ kind: "ping", nowMs: 30, from: PUBLIC_B, txId: TX, nominating: false });
  bench.give({ kind: "pong", nowMs: 40, from: IPV6_B, rttMs: 10 });
  bench.give({ kind: "traffic", nowMs: 6_000, sent: true, received: false });
  bench.runUntil(6_399);
  bench.give({ kind: "pong", nowMs: 6_400, from: PUBLIC_B, rttMs: 100 });
  bench.runUntil(6_999);
  deepStrictEqual(bench.peer.path!.endpoint, IPV6_B);
  bench.runUntil(7_000);
  deepStrictEqual(bench.peer.path!.endpoint, PUBLIC_B);
});

Deno.test("step() remakes a link over IPv6 for IPv4 only when IPv6 does not answer after all", () => {
  const [ipv4, ipv6] = [PUBLIC_B, IPV6_B].map(formatEndpoint);
  const setLinks = (controlling: boolean, ipv6Ms?: number) => {
    const bench = new Bench(controlling);
    bench.give({ kind: "listed", nowMs: 0, endpoints: [IPV6_B, PUBLIC_B] });
    bench.give({ kind: "pong", nowMs: 20, from: IPV6_B, rttMs: 20 });
    bench.give({ kind: "traffic", nowMs: 1_000, sent: true, received: false });
    bench.runUntil(9_000);
    strictEqual(bench.peer.path!.dead, true);
    // The peer is back, and first heard of over IPv4.
    bench.give({ kind: "ping", nowMs: 9_000, from: PUBLIC_B, txId: TX, nominating: !controlling });
    bench.give({ kind: "pong", nowMs: 9_020, from: PUBLIC_B, rttMs: 20 });
    if (ipv6Ms !== undefined) {
      bench.runUntil(ipv6Ms);
      bench.give({ kind: "ping", nowMs: ipv6Ms, from: IPV6_B, txId: TX, nominating: !controlling });
      bench.give({ kind: "pong", nowMs: ipv6Ms, from: IPV6_B, rttMs: 20 });
    }
    bench.runUntil(10_000);
    strictEqual(bench.peer.state, "direct");
    return bench.log.flatMap(({ atMs, effect }) =>
      effect.kind === "set-link" ? [`${atMs} ${formatEndpoint(effect.endpoint)}`] : []
    );
  };
  for (const controlling of [true, false]) {
    deepStrictEqual(setLinks(controlling, 9_300), [`20 ${ipv6}`]);
    deepStrictEqual(setLinks(controlling), [
      `20 ${ipv6}`,
      `${9_020 + REMADE_LINK_HOLD_MS} ${ipv4}`,
    ]);
  }
});

Deno.test("step() asks a peer whose paths keep failing not more than once a second", () => {
  const bench = directBench();
  const before = bench.count("send-call-me-maybe");
  for (let nowMs = 5_000; nowMs < 15_000; nowMs += 500) {
    bench.give({ kind: "traffic", nowMs, sent: true, received: false });
    bench.runUntil(nowMs + 200);
    bench.give({ kind: "pong", nowMs: nowMs + 200, from: PUBLIC_B, rttMs: 20 });
  }
  const asked = bench.count("send-call-me-maybe") - before;
  ok(asked >= 5 && asked <= 10, `${asked} times`);
});

Deno.test("step() follows a peer whose mapping moved, within a second", () => {
  for (const controlling of [true, false]) {
    const bench = directBench(controlling);
    const moved = parseEndpoint("198.51.100.2:40000");
    bench.give({ kind: "ping", nowMs: 10_000, from: moved, txId: TX, nominating: !controlling });
    bench.give({ kind: "pong", nowMs: 10_020, from: moved, rttMs: 20 });
    bench.runUntil(11_000);
    deepStrictEqual(bench.peer.path!.endpoint, moved, `controlling ${controlling}`);
    strictEqual(bench.peer.state, "direct");
  }
});

Deno.test("step() stays when the old path still answers", () => {
  const bench = directBench();
  bench.give({ kind: "ping", nowMs: 10_000, from: PUBLIC_A, txId: TX, nominating: false });
  bench.give({ kind: "pong", nowMs: 10_020, from: PUBLIC_A, rttMs: 20 });
  bench.give({ kind: "pong", nowMs: 10_030, from: PUBLIC_B, rttMs: 20 });
  bench.runUntil(15_000);
  deepStrictEqual(bench.peer.path!.endpoint, PUBLIC_B);
});

Deno.test("step() never answers an invitation with an invitation", () => {
  const bench = directBench();
  const before = bench.count("send-call-me-maybe");
  for (let i = 0; i < 50; i++) {
    bench.give({ kind: "call-me-maybe", nowMs: 1_000 + i, endpoints: [PUBLIC_A] });
  }
  strictEqual(bench.count("send-call-me-maybe"), before);
  ok(bench.pings(PUBLIC_A).length <= 3);
});

Deno.test("step() bounds the candidates that pings can add", () => {
  const bench = directBench();
  for (let port = 1; port <= 1000; port++) {
    const from = parseEndpoint(`198.51.100.77:${port}`);
    bench.give({ kind: "ping", nowMs: 1_000, from, txId: TX, nominating: false });
  }
  ok(bench.peer.candidates.size <= MAX_REFLEXIVE + 2, `${bench.peer.candidates.size}`);
});

Deno.test("step() forgets an unlisted peer once its path is dead, not before", () => {
  const bench = directBench();
  bench.give({ kind: "unlisted", nowMs: 1_000 });
  strictEqual(bench.count("forget"), 0);
  bench.give({ kind: "pong", nowMs: 1_010, from: PUBLIC_B, rttMs: 10 });
  bench.runUntil(20_000);
  strictEqual(bench.count("forget"), 0);
  bench.give({ kind: "unlisted", nowMs: 20_000 });
  bench.runUntil(20_000 + PATH_DEAD_MS);
  ok(bench.count("forget") > 0);
});

/** A peer that is there: it invites us. */
function invitedBench(controlling: boolean, endpoints: Endpoint[] = [PUBLIC_B]): Bench {
  const bench = new Bench(controlling);
  bench.give({ kind: "listed", nowMs: 0, endpoints });
  bench.give({ kind: "call-me-maybe", nowMs: 0, endpoints });
  return bench;
}

/** Nothing answers directly, but the relay does. */
function relayedBench(controlling = true): Bench {
  const bench = invitedBench(controlling);
  bench.runUntil(RELAY_AFTER_MS);
  bench.give({ kind: "relay-open", nowMs: RELAY_AFTER_MS + 50, endpoint: RELAY });
  bench.give({ kind: "pong", nowMs: RELAY_AFTER_MS + 90, from: RELAY, rttMs: 40 });
  strictEqual(bench.peer.state, "relay");
  return bench;
}

Deno.test("step() asks for a relay once a search is unanswered for a second, not before", () => {
  const bench = invitedBench(true);
  bench.runUntil(60_000);
  deepStrictEqual(bench.times("open-relay"), [RELAY_AFTER_MS]);
  const answered = directBench();
  answered.runUntil(20_000);
  strictEqual(answered.count("open-relay"), 0);
});

Deno.test("step() reaches a peer that has no endpoints through the relay", () => {
  const bench = invitedBench(false, []);
  bench.runUntil(RELAY_AFTER_MS);
  strictEqual(bench.count("open-relay"), 1);
  bench.give({ kind: "relay-open", nowMs: RELAY_AFTER_MS + 50, endpoint: RELAY });
  deepStrictEqual(bench.pings(RELAY), [RELAY_AFTER_MS + 50]);
  bench.give({ kind: "pong", nowMs: RELAY_AFTER_MS + 90, from: RELAY, rttMs: 40 });
  strictEqual(bench.peer.state, "relay");
});

Deno.test("step() asks again for a relay that it did not get, for as long as the peer shows itself", () => {
  const bench = invitedBench(true);
  for (let i = 1; i <= 20; i++) {
    bench.give({ kind: "call-me-maybe", nowMs: bench.nowMs, endpoints: [PUBLIC_B] });
    bench.runUntil(bench.nowMs + RELAY_RETRY_MS.at(-1)! + 1);
    strictEqual(bench.count("open-relay"), i);
    bench.give({ kind: "relay-closed", nowMs: bench.nowMs });
  }
});

Deno.test("step() asks once for a relay to a peer that never shows itself, and again when it does", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.runUntil(RELAY_AFTER_MS);
  bench.give({ kind: "relay-open", nowMs: RELAY_AFTER_MS + 50, endpoint: RELAY });
  bench.runUntil(3_600_000);
  deepStrictEqual([bench.count("open-relay"), bench.count("close-relay")], [1, 1]);
  const sent = bench.pings(PUBLIC_B).length;
  const invited = bench.count("send-call-me-maybe");
  bench.runUntil(7_200_000);
  strictEqual(bench.pings(PUBLIC_B).length - sent, 60, "one ping a minute");
  strictEqual(bench.count("send-call-me-maybe") - invited, 12, "it may think the same of us");
  bench.give({ kind: "call-me-maybe", nowMs: bench.nowMs, endpoints: [PUBLIC_B] });
  strictEqual(bench.times("open-relay").at(-1), bench.nowMs);
});

Deno.test("step() invites everybody anew when the coordinator is back", () => {
  const bench = new Bench(true);
  bench.give({ kind: "listed", nowMs: 0, endpoints: [PUBLIC_B] });
  bench.runUntil(600_000);
  const sent = bench.count("send-call-me-maybe");
  bench.give({ kind: "relay-ready", nowMs: bench.nowMs });
  strictEqual(bench.count("send-call-me-maybe") - sent, 1);
});

Deno.test("step() takes a relay as a path, and a direct one as soon as it answers", () => {
  for (const controlling of [true, false]) {
    const bench = relayedBench(controlling);
    deepStrictEqual(bench.peer.link, { kind: "set", endpoint: RELAY });
    bench.give({ kind: "ping", nowMs: 5_000, from: PUBLIC_B, txId: TX, nominating: false });
    bench.give({ kind: "pong", nowMs: 5_020, from: PUBLIC_B, rttMs: 20 });
    if (!controlling) {
      strictEqual(bench.peer.state, "relay", "the other side chooses");
      bench.give({ kind: "ping", nowMs: 5_030, from: PUBLIC_B, txId: TX, nominating: true });
    }
    strictEqual(bench.peer.state, "direct");
    deepStrictEqual(bench.peer.link, { kind: "set", endpoint: PUBLIC_B });
  }
});

Deno.test("step() never leaves a direct path for a relay while it answers", () => {
  const bench = directBench();
  bench.give({ kind: "relay-open", nowMs: 1_000, endpoint: RELAY });
  bench.give({ kind: "pong", nowMs: 1_040, from: RELAY, rttMs: 1 });
  strictEqual(bench.peer.state, "direct");
  deepStrictEqual(bench.peer.path!.endpoint, PUBLIC_B);
});

Deno.test("step() searches on while it is relayed, with pauses up to a minute", () => {
  const bench = relayedBench();
  for (let nowMs = 10_000; nowMs < 3_600_000; nowMs += 10_000) {
    bench.runUntil(nowMs);
    bench.give({ kind: "pong", nowMs, from: RELAY, rttMs: 40 });
  }
  strictEqual(bench.peer.state, "relay");
  const gaps = bench.pings(PUBLIC_B).map((at, i, all) => at - (all[i - 1] ?? 0));
  ok(Math.max(...gaps) <= 60_000, `largest gap ${Math.max(...gaps)}`);
  strictEqual(bench.count("close-relay"), 0);
});

Deno.test("step() is silent for more than 30 s once, when it is relayed, and tells of each round", () => {
  const bench = relayedBench();
  for (let nowMs = 10_000; nowMs <= 50_000; nowMs += 10_000) {
    bench.runUntil(nowMs);
    bench.give({ kind: "pong", nowMs, from: RELAY, rttMs: 40 });
  }
  const [first, second] = RELAYED_PAUSE_MS;
  deepStrictEqual(bench.times("no-path-yet"), [first, first + second]);
  deepStrictEqual(bench.times("send-opener"), [0, first, first + second]);
  const pings = bench.pings(PUBLIC_B);
  const gaps = pings.slice(1).map((at, i) => at - pings[i]!);
  ok(Math.max(...gaps) > 30_000, gaps.join());
});

Deno.test("step() gives a relay back when a direct path has lasted", () => {
  const bench = relayedBench();
  bench.give({ kind: "pong", nowMs: 5_000, from: PUBLIC_B, rttMs: 20 });
  for (let nowMs = 15_000; nowMs <= 5_000 + RELAY_KEPT_MS; nowMs += 10_000) {
    bench.give({ kind: "pong", nowMs, from: PUBLIC_B, rttMs: 20 });
    strictEqual(bench.count("close-relay"), nowMs < 5_000 + RELAY_KEPT_MS ? 0 : 1);
  }
  ok(!bench.peer.candidates.has(formatEndpoint(RELAY)));
});

Deno.test("step() falls back to the relay it still has when the direct path dies", () => {
  const bench = relayedBench();
  bench.give({ kind: "pong", nowMs: 5_000, from: PUBLIC_B, rttMs: 20 });
  bench.runUntil(5_000 + KEEPALIVE_MS);
  bench.runUntil(5_000 + KEEPALIVE_MS + PATH_DEAD_MS);
  strictEqual(bench.peer.state, "punching");
  bench.give({ kind: "pong", nowMs: bench.nowMs + 40, from: RELAY, rttMs: 40 });
  strictEqual(bench.peer.state, "relay");
  strictEqual(bench.count("open-relay"), 1);
});

Deno.test("step() asks for another relay at once when the one in use is lost", () => {
  const bench = relayedBench();
  bench.give({ kind: "relay-closed", nowMs: 10_000 });
  strictEqual(bench.peer.state, "punching");
  bench.runUntil(10_000 + RELAY_AFTER_MS);
  strictEqual(bench.count("open-relay"), 2);
});

interface PunchOptions {
  /** When each side hears of the other from the coordinator. */
  listedA: number;
  listedB: number;
  oneWayMs: number;
  /** Numbers of datagrams that are lost. */
  loss: readonly number[];
  /** Routers that track what reaches themselves: a packet that comes too early spoils the port. */
  trap?: boolean;
}

/** From one node through the coordinator to the other. */
const SIGNAL_MS = 20;

/**
 * Two peers behind port-restricted NATs: a packet passes once its receiver has sent to its sender.
 * When both are direct, or Infinity.
 */
function punch({ listedA, listedB, oneWayMs, loss, trap = false }: PunchOptions): number {
  const sides = { a: new Bench(true), b: new Bench(false) };
  const addresses = { a: PUBLIC_A, b: PUBLIC_B };
  const listedMs = { a: listedA, b: listedB };
  const opened = { a: false, b: false };
  const spoilt = { a: false, b: false };
  type Packet = { kind: "ping" | "pong" | "call-me-maybe"; nominating: boolean };
  const wire: { atMs: number; to: "a" | "b"; packet: Packet }[] = [];
  const drained = { a: 0, b: 0 };
  let sent = 0;
  const transmit = (side: "a" | "b", atMs: number, effect: PeerEffect) => {
    const to = side === "a" ? "b" : "a";
    switch (effect.kind) {
      case "send-call-me-maybe":
        wire.push({
          atMs: atMs + SIGNAL_MS,
          to,
          packet: { kind: "call-me-maybe", nominating: false },
        });
        break;
      case "send-opener":
        opened[side] = true;
        break;
      case "send-ping":
      case "send-pong": {
        opened[side] = true;
        if (loss.includes(sent++) || spoilt[side]) break;
        const kind = effect.kind === "send-ping" ? "ping" : "pong";
        const nominating = effect.kind === "send-ping" && effect.nominating;
        wire.push({ atMs: atMs + oneWayMs, to, packet: { kind, nominating } });
      }
    }
  };
  const receive = (side: "a" | "b", nowMs: number, { kind, nominating }: Packet) => {
    const from = addresses[side === "a" ? "b" : "a"];
    if (kind === "call-me-maybe") {
      if (nowMs < listedMs[side]) return;
      return sides[side].give({ kind, nowMs, endpoints: [from] });
    }
    if (!opened[side]) {
      spoilt[side] ||= trap;
    } else if (kind === "ping") {
      sides[side].give({ kind, nowMs, from, txId: TX, nominating });
    } else sides[side].give({ kind, nowMs, from, rttMs: 2 * oneWayMs });
  };
  for (let nowMs = 0; nowMs < 10_000; nowMs++) {
    for (const side of ["a", "b"] as const) {
      const endpoints = [side === "a" ? PUBLIC_B : PUBLIC_A];
      if (listedMs[side] === nowMs) sides[side].give({ kind: "listed", nowMs, endpoints });
    }
    for (const { to, packet } of wire.filter(({ atMs }) => atMs === nowMs)) {
      receive(to, nowMs, packet);
    }
    for (const side of ["a", "b"] as const) {
      const bench = sides[side];
      if (nowMs < listedMs[side]) continue;
      if (nextTickMs(bench.peer) <= nowMs) bench.give({ kind: "tick", nowMs });
      for (; drained[side] < bench.log.length; drained[side]++) {
        const { atMs, effect } = bench.log[drained[side]]!;
        transmit(side, atMs, effect);
      }
    }
    if (sides.a.peer.state === "direct" && sides.b.peer.state === "direct") return nowMs;
  }
  return Infinity;
}

const MEETINGS = [
  { name: "at once", listedA: 0, listedB: 0, oneWayMs: 10, loss: [], withinMs: 60 },
  { name: "one side 80 ms later", listedA: 80, listedB: 0, oneWayMs: 10, loss: [], withinMs: 150 },
  { name: "the other later", listedA: 0, listedB: 80, oneWayMs: 10, loss: [], withinMs: 150 },
  { name: "slow path", listedA: 0, listedB: 30, oneWayMs: 200, loss: [], withinMs: 900 },
  { name: "pings lost", listedA: 0, listedB: 0, oneWayMs: 10, loss: [0, 1, 2], withinMs: 300 },
] as const;

for (const trap of [false, true]) {
  const routers = trap ? "routers that track what reaches themselves" : "port-restricted NATs";
  Deno.test(`two peers behind ${routers} meet`, () => {
    for (const { name, withinMs, ...options } of MEETINGS) {
      const directMs = punch({ ...options, trap });
      ok(directMs <= withinMs, `${name}: direct after ${directMs} ms`);
    }
  });
}
