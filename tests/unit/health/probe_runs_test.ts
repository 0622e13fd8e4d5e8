/** Runs of probes in virtual time, what they add up to, and the attempts of TCP and HTTP. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { type Connection, httpAttempt, tcpAttempt } from "../../../lib/health/application.ts";
import { type Attempt, type ProbeResult, runProbes, statistics } from "../../../lib/health/mod.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const LIMITS = { count: 3, intervalMs: 100, timeoutMs: 1000 };
const END = new Error("stopped");

/** Answers the nth probe after the nth delay; `undefined`: never. */
function after(clock: VirtualClock, delaysMs: (number | undefined)[]): Attempt {
  return async (sequence, signal) => {
    await clock.sleep(delaysMs[sequence - 1] ?? 1e9, signal);
    return {};
  };
}

Deno.test("runProbes() starts probes at the interval, answered or not", async () => {
  const clock = new VirtualClock();
  const seen: number[] = [];
  const onResult = ({ sequence }: ProbeResult) => void seen.push(sequence);
  const attempt = after(clock, [undefined, 10, 20]);
  const results = await clock.until(runProbes(attempt, { ...LIMITS, clock, onResult }));
  deepStrictEqual(seen, [2, 3, 1], "as they come");
  const startMs = clock.wallMs() - 1000;
  deepStrictEqual(results, [
    { sequence: 1, wallMs: startMs, error: "no answer in 1s" },
    { sequence: 2, wallMs: startMs + 100, rttMs: 10 },
    { sequence: 3, wallMs: startMs + 200, rttMs: 20 },
  ]);
  strictEqual(clock.nowMs(), 1000);
});

Deno.test("runProbes() ends an attempt that takes too long, and does not wait for it", async () => {
  const clock = new VirtualClock();
  let ended = 0;
  const deaf: Attempt = (_, signal) => {
    signal.addEventListener("abort", () => ended++);
    return new Promise(() => {});
  };
  const results = await clock.until(runProbes(deaf, { ...LIMITS, clock }));
  strictEqual(ended, 3);
  ok(results.every(({ error }) => error === "no answer in 1s"));
});

Deno.test("runProbes() takes an attempt's words and its own time", async () => {
  const clock = new VirtualClock();
  const attempts: Attempt[] = [
    () => Promise.reject(new Error("no\nroute")),
    async () => ({ rttMs: 0.25 }),
    async () => ({ status: 503, error: "HTTP status 503" }),
    async () => ({ rttMs: 1001 }),
    async () => ({ status: 204 }),
  ];
  const attempt: Attempt = (sequence, signal) => attempts[sequence - 1]!(sequence, signal);
  const results = await clock.until(runProbes(attempt, { ...LIMITS, count: 5, clock }));
  deepStrictEqual(results.map(({ sequence: _, wallMs: __, ...found }) => found), [
    { error: "no route" },
    { rttMs: 0.25 },
    { status: 503, error: "HTTP status 503" },
    { error: "no answer in 1s" },
    { status: 204, rttMs: 0 },
  ]);
});

Deno.test("runProbes() keeps what was found when it is stopped", async () => {
  const cases: [string, number, number[]][] = [
    ["while the third is under way", 250, [1, 2]],
    ["in the pause before the third", 150, [1, 2]],
    ["before anything is answered", 5, []],
  ];
  for (const [name, stopMs, sequences] of cases) {
    const clock = new VirtualClock();
    const stop = new AbortController();
    clock.after(stopMs, () => stop.abort(END));
    const attempt = after(clock, [10, 10, undefined]);
    const options = { ...LIMITS, clock, signal: stop.signal };
    const results = await clock.until(runProbes(attempt, options));
    deepStrictEqual(results.map(({ sequence }) => sequence), sequences, name);
    strictEqual(clock.nowMs(), stopMs, name);
  }
});

Deno.test("runProbes() ends with what its listener throws", async () => {
  const clock = new VirtualClock();
  const onResult = () => {
    throw END;
  };
  const run = runProbes(after(clock, [10, undefined, 10]), { ...LIMITS, clock, onResult });
  await rejects(clock.until(run), END);
  strictEqual(clock.nowMs(), 10);
});

Deno.test("statistics() gives loss and the four numbers of ping(8)", () => {
  const results = (rtts: (number | undefined)[]): ProbeResult[] =>
    rtts.map((rttMs, i) => ({
      sequence: i + 1,
      wallMs: 0,
      ...(rttMs === undefined ? { error: "x" } : { rttMs }),
    }));
  const none = undefined;
  const cases: [string, (number | undefined)[], ReturnType<typeof statistics>][] = [
    ["nothing sent", [], { sent: 0, received: 0, lossPercent: 0 }],
    ["nothing received", [none, none], { sent: 2, received: 0, lossPercent: 100 }],
    ["one", [4], {
      ...{ sent: 1, received: 1, lossPercent: 0 },
      rtt: { minMs: 4, avgMs: 4, maxMs: 4, stddevMs: 0 },
    }],
    ["one of four lost", [2, none, 4, 6], {
      ...{ sent: 4, received: 3, lossPercent: 25 },
      rtt: { minMs: 2, avgMs: 4, maxMs: 6, stddevMs: Math.sqrt(8 / 3) },
    }],
  ];
  for (const [name, rtts, expected] of cases) {
    deepStrictEqual(statistics(results(rtts)), expected, name);
  }
  const many = statistics(results(Array.from({ length: 1_000_000 }, (_, i) => i)));
  deepStrictEqual([many.rtt?.minMs, many.rtt?.maxMs], [0, 999_999]);
});

/** A server that says something some time after the connection, or closes it. */
function fakeConnect(clock: VirtualClock, saysAfterMs: number | undefined, length: number | null) {
  const state = { closed: 0 };
  const connect = async (): Promise<Connection> => {
    await clock.sleep(30);
    const closing = new AbortController();
    return {
      read: async () => {
        await clock.sleep(saysAfterMs ?? 1e9, closing.signal);
        return length;
      },
      [Symbol.dispose]() {
        if (!closing.signal.aborted) state.closed++;
        closing.abort(END);
      },
    };
  };
  return { connect, state };
}

Deno.test("tcpAttempt() is answered by the connection, or by its first byte", async () => {
  const cases: [string, boolean, number | undefined, number | null, Partial<ProbeResult>][] = [
    ["connected", false, undefined, null, { rttMs: 30 }],
    ["a banner", true, 50, 1, { rttMs: 80 }],
    ["no banner", true, undefined, null, { error: "no answer in 1s" }],
    ["closed at once", true, 0, null, { error: "connection closed before its first byte" }],
  ];
  for (const [name, firstByte, saysAfterMs, length, expected] of cases) {
    const clock = new VirtualClock();
    const { connect, state } = fakeConnect(clock, saysAfterMs, length);
    const attempt = tcpAttempt(parseEndpoint("10.0.0.2:22"), { connect, firstByte });
    const [result] = await clock.until(runProbes(attempt, { ...LIMITS, count: 1, clock }));
    const { sequence: _, wallMs: __, ...found } = result!;
    deepStrictEqual(found, expected, name);
    strictEqual(state.closed, 1, `${name}: the connection is closed`);
  }
});

Deno.test("tcpAttempt() and httpAttempt() say shortly why there is no connection", async () => {
  const refused = "Connection refused (os error 111)";
  const attempts: [Attempt, string][] = [
    [
      tcpAttempt(parseEndpoint("10.0.0.2:22"), { connect: () => Promise.reject(Error(refused)) }),
      "Connection refused",
    ],
    [
      httpAttempt(
        "http://10.0.0.2/",
        () =>
          Promise.reject(
            new TypeError(
              "error sending request for url (http://10.0.0.2/): client error (Connect): " +
                `tcp connect error: ${refused}: ${refused}`,
            ),
          ),
      ),
      "tcp connect error: Connection refused",
    ],
  ];
  for (const [attempt, expected] of attempts) {
    const clock = new VirtualClock();
    const [result] = await clock.until(runProbes(attempt, { ...LIMITS, count: 1, clock }));
    strictEqual(result!.error, expected);
  }
});

Deno.test("httpAttempt() takes a status below 400 for an answer", async () => {
  for (const status of [200, 204, 301, 399, 400, 404, 500, 599]) {
    const clock = new VirtualClock();
    const get = async (_: string, { redirect }: RequestInit) => {
      strictEqual(redirect, "manual");
      await clock.sleep(40);
      return new Response(null, { status });
    };
    const attempt = httpAttempt("http://10.0.0.2/", get);
    const [result] = await clock.until(runProbes(attempt, { ...LIMITS, count: 1, clock }));
    strictEqual(result!.status, status);
    if (status < 400) strictEqual(result!.rttMs, 40);
    else strictEqual(result!.error, `HTTP status ${status}`);
  }
});
