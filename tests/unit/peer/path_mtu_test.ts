/** The search for a path's MTU, over paths with a width, a delay and losses. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  CHECK_GAP_MS,
  GROW_GAP_MS,
  newPathMtu,
  nextPathMtuMs,
  type PathMtuEvent,
  pathMtuOf,
  SILENT_CHECK_GAP_MS,
  stepPathMtu,
} from "../../../lib/peer/mod.ts";

const LEAST = 576;

interface Line {
  carries: number;
  rttMs?: number;
  /** Of each direction, by chance. */
  loss?: number;
  seed?: number;
}

/** A path, and who looks at it. */
class Path {
  nowMs = 0;
  sent = 0;
  carries: number;
  isDown = false;
  state;
  readonly widest: number;
  readonly #line: Required<Line>;
  readonly #answers: { atMs: number; event: PathMtuEvent }[] = [];
  #random: number;

  constructor(line: Line, { widest = 1500, limit }: { widest?: number; limit?: number } = {}) {
    this.#line = { rttMs: 20, loss: 0, seed: 1, ...line };
    this.#random = this.#line.seed * 7919 + 1;
    this.carries = line.carries;
    this.widest = widest;
    this.state = newPathMtu(LEAST, limit);
  }

  get mtu(): number {
    return pathMtuOf(this.state);
  }

  look(): this {
    this.#step({ kind: "look", nowMs: this.nowMs, widest: this.widest });
    return this;
  }

  run(ms: number): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      const tickMs = nextPathMtuMs(this.state);
      const answer = this.#answers[0];
      this.nowMs = Math.max(this.nowMs, Math.min(endMs, tickMs, answer?.atMs ?? Infinity));
      if (answer && answer.atMs <= this.nowMs) this.#step(this.#answers.shift()!.event);
      else if (tickMs <= this.nowMs) this.#step({ kind: "tick", nowMs: this.nowMs });
    }
    return this;
  }

  /** Data goes out every 100 ms, and comes back as it should. */
  use(ms: number, isSilent = false): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.#step({ kind: "use", nowMs: this.nowMs, widest: this.widest, isSilent });
      this.run(100);
    }
    return this;
  }

  #step(event: PathMtuEvent): void {
    const [state, probes] = stepPathMtu(this.state, event);
    this.state = state;
    for (const { salvo, size } of probes) {
      this.sent++;
      const { rttMs, loss } = this.#line;
      const isLost = this.isDown || this.#chance(loss) || this.#chance(loss);
      if (isLost || (size ?? 0) > this.carries) continue;
      const atMs = this.nowMs + rttMs;
      this.#answers.push({
        atMs,
        event: { kind: "pong", nowMs: atMs, salvo, ...(size && { size }) },
      });
    }
  }

  #chance(part: number): boolean {
    this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0;
    return this.#random / 2 ** 32 < part;
  }
}

Deno.test("a path that carries what its route says is known by two pings", () => {
  const path = new Path({ carries: 1500 }).look().run(5_000);
  deepStrictEqual([path.mtu, path.sent, path.state.limit], [1500, 2, undefined]);
  strictEqual(nextPathMtuMs(path.state), Infinity);
});

for (const carries of [576, 600, 999, 1280, 1300, 1363, 1400, 1492, 1499]) {
  for (const rttMs of [1, 20, 200]) {
    Deno.test(`a path of ${carries} bytes and ${rttMs} ms is found to the byte`, () => {
      const path = new Path({ carries, rttMs }).look().run(2_500);
      ok(path.mtu <= carries && path.mtu > 0.85 * carries, `${path.mtu} soon`);
      path.run(2_500);
      strictEqual(path.mtu, carries);
      ok(path.sent <= 110, `${path.sent} pings`);
      strictEqual(path.state.search, undefined);
    });
  }
}

Deno.test("jumbo frames are found where they pass, and where they do not", () => {
  for (const carries of [9000, 8950, 4352, 1500, 1400]) {
    const path = new Path({ carries }, { widest: 9001 }).look().run(4_000);
    strictEqual(path.mtu, carries);
  }
});

for (const loss of [0.05, 0.15, 0.3]) {
  Deno.test(`on a line that loses ${loss * 100} % each way nothing is called narrow falsely`, () => {
    let wrong = 0;
    for (let seed = 1; seed <= 100; seed++) {
      const path = new Path({ carries: 1500, loss, seed }).look();
      for (let i = 0; i < 60; i++) {
        path.use(10_000);
        if (path.mtu < 1500) wrong++;
      }
    }
    strictEqual(wrong, 0);
  });

  Deno.test(`on a line that loses ${loss * 100} % each way a narrow path is found`, () => {
    for (let seed = 1; seed <= 100; seed++) {
      const path = new Path({ carries: 1400, loss, seed }).look().use(30_000);
      ok(path.mtu <= 1400 && path.mtu > 1300, `${path.mtu} with seed ${seed}`);
    }
  });
}

Deno.test("a path that becomes narrower is found while data goes unanswered, and else too", () => {
  for (const [isSilent, withinMs] of [[true, 3_500], [false, CHECK_GAP_MS + 1_500]] as const) {
    const path = new Path({ carries: 1500 }).look().use(60_000, isSilent);
    path.carries = 1320;
    path.use(withinMs, isSilent);
    ok(path.mtu <= 1320 && path.mtu >= 1280, `${path.mtu}`);
  }
});

Deno.test("a path that becomes wider is found within a few minutes of use", () => {
  const path = new Path({ carries: 1280 }).look().use(10_000);
  strictEqual(path.mtu, 1280);
  path.carries = 1420;
  path.use(GROW_GAP_MS);
  strictEqual(path.mtu, 1420);
  path.carries = 1500;
  path.use(GROW_GAP_MS + 5_000);
  deepStrictEqual([path.mtu, path.state.limit], [1500, undefined]);
});

Deno.test("a path in use costs little, and one that is not costs nothing", () => {
  const path = new Path({ carries: 1280 }).look().run(10_000);
  const found = path.sent;
  path.run(3_600_000);
  strictEqual(path.sent, found);
  path.use(600_000);
  ok(path.sent - found < 400, `${path.sent - found}`);
});

Deno.test("a silent path is not called narrow, nor asked for ever", () => {
  const path = new Path({ carries: 1500 });
  path.isDown = true;
  path.look().run(60_000);
  deepStrictEqual([path.mtu, path.state.search], [1500, undefined]);
  ok(path.sent <= 10);
  path.isDown = false;
  path.carries = 1400;
  path.use(SILENT_CHECK_GAP_MS + 2_500);
  strictEqual(path.mtu, 1400);
});

Deno.test("what an earlier run found is looked at before it is believed, and tried for more", () => {
  const path = new Path({ carries: 1500 }, { limit: 1400 }).look().run(1_000);
  deepStrictEqual([path.mtu, path.sent], [1400, 2]);
  path.use(1_000);
  strictEqual(path.mtu, 1500);
});

Deno.test("a route that becomes wider is followed at once, and looked at", () => {
  const line = new Path({ carries: 1500 }, { widest: 1400 }).look().run(1_000);
  Object.assign(line, { widest: 1500, carries: 1450 });
  line.use(100);
  strictEqual(line.mtu, 1500);
  line.use(CHECK_GAP_MS);
  strictEqual(line.mtu, 1450);
});

Deno.test("a path that is not to be used is left alone", () => {
  const path = new Path({ carries: 1280 }).look().run(100);
  const [state] = stepPathMtu(path.state, { kind: "stop", nowMs: path.nowMs });
  strictEqual(nextPathMtuMs(state), Infinity);
  const late: PathMtuEvent = { kind: "pong", nowMs: path.nowMs, salvo: 0, size: 1280 };
  deepStrictEqual(stepPathMtu(state, late), [state, []]);
});
