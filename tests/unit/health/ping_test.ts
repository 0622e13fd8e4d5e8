/** Which answers count for a ping, over a network that answers as each case says. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { type Family, type Ip, parseIp } from "../../../lib/addr.ts";
import { onesComplementSum } from "../../../lib/checksum.ts";
import type { Clock } from "../../../lib/edges.ts";
import { type EchoSocket, type OpenEchoSocket, ping } from "../../../lib/health/ping.ts";
import type { ProbeResult } from "../../../lib/health/probes.ts";
import { type IcmpMessage, IcmpNotAllowedError, SystemError } from "../../../lib/linux/mod.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const TARGET = { 4: parseIp("10.0.0.2"), 6: parseIp("fd00::2") };
const OTHER = { 4: parseIp("10.0.0.3"), 6: parseIp("fd00::3") };
const OWN_IDENTIFIER = 0xbeef;
const DELAY_MS = 20;

const IDENTIFIER = 4;
const SEQUENCE = 6;
const DATA = 8;

interface Way {
  /** Gives the messages that come back, and when; the reply to the echo unless told. */
  answer?: (reply: IcmpMessage) => { afterMs: number; message: IcmpMessage }[];
  isPingSocket?: boolean;
  /** The errno of sending. */
  errno?: number;
  family?: Family;
  count?: number;
}

/** The kernel's side: a ping socket sets the identifier, and answers carry it. */
function fakeNetwork(clock: VirtualClock, way: Way) {
  const state = { sent: [] as Uint8Array[], isClosed: false };
  const { isPingSocket = false, errno, answer } = way;
  const open: OpenEchoSocket = (family, onMessage) => {
    const socket: EchoSocket = {
      setsIdentifier: isPingSocket,
      send(message, to) {
        if (errno !== undefined) throw new SystemError(`ping ${to}`, errno);
        state.sent.push(message);
        const reply = toReply(family, message, isPingSocket ? OWN_IDENTIFIER : undefined);
        const plain = { from: to, waitedMs: 0, message: reply };
        const answers = answer?.(plain) ?? [{ afterMs: DELAY_MS, message: plain }];
        for (const { afterMs, message } of answers) clock.after(afterMs, () => onMessage(message));
      },
      [Symbol.dispose]() {
        state.isClosed = true;
      },
    };
    return socket;
  };
  return { open, state };
}

function toReply(family: Family, echo: Uint8Array, identifier: number | undefined): Uint8Array {
  const reply = echo.slice();
  reply[0] = family === 4 ? 0 : 129;
  if (identifier !== undefined) reply.set([identifier >> 8, identifier & 0xff], IDENTIFIER);
  return withChecksum(family, reply);
}

function withChecksum(family: Family, message: Uint8Array): Uint8Array {
  if (family === 6) return message;
  message.set([0, 0], 2);
  const sum = ~onesComplementSum(message) & 0xffff;
  message.set([sum >> 8, sum & 0xff], 2);
  return message;
}

/** The reply with one bit of one byte turned over, its checksum right. */
function forged(family: Family, offset: number) {
  return (reply: IcmpMessage) => {
    const message = reply.message.slice();
    message[offset]! ^= 1;
    return [{ afterMs: DELAY_MS, message: { ...reply, message: withChecksum(family, message) } }];
  };
}

async function run(way: Way): Promise<ProbeResult[]> {
  const { family = 4, count = 1 } = way;
  const clock = new VirtualClock();
  const { open, state } = fakeNetwork(clock, way);
  // As the clock is, the same every time.
  const random = (length: number) => Uint8Array.from({ length }, (_, i) => i + 1);
  const limits = { count, intervalMs: 100, timeoutMs: 1000, sizeBytes: 16 };
  const results = await clock.until(ping(TARGET[family], { ...limits, clock, random, open }));
  ok(state.isClosed);
  return results;
}

const rtts = (results: ProbeResult[]) => results.map(({ rttMs }) => rttMs);

Deno.test("ping() takes the answer of that address to that echo only", async () => {
  const one = (change: Partial<IcmpMessage>, afterMs = DELAY_MS) => (reply: IcmpMessage) => [
    { afterMs, message: { ...reply, ...change } },
  ];
  for (const family of [4, 6] as const) {
    const cases: [string, Way, (number | undefined)[]][] = [
      ["the reply", {}, [DELAY_MS]],
      ["the reply to a ping socket", { isPingSocket: true }, [DELAY_MS]],
      ["from another address", { answer: one({ from: OTHER[family] }) }, [undefined]],
      ["another identifier", { answer: forged(family, IDENTIFIER) }, [undefined]],
      ["another sequence number", { answer: forged(family, SEQUENCE) }, [undefined]],
      ["another token", { answer: forged(family, DATA) }, [undefined]],
      ["other data at the end", { answer: forged(family, DATA + 15) }, [undefined]],
      ["another type", { answer: forged(family, 0) }, [undefined]],
      ["another code", { answer: forged(family, 1) }, [undefined]],
      ["no data", {
        answer: (reply) => {
          const message = withChecksum(family, reply.message.slice(0, DATA));
          return [{ afterMs: DELAY_MS, message: { ...reply, message } }];
        },
      }, [undefined]],
      ["an empty message", { answer: one({ message: new Uint8Array() }) }, [undefined]],
      ["nothing", { answer: () => [] }, [undefined]],
      ["in time, just", { answer: one({}, 999) }, [999]],
      ["too late", { answer: one({}, 1001) }, [undefined]],
      ["read 5 ms after it came", { answer: one({ waitedMs: 5 }) }, [DELAY_MS - 5]],
    ];
    for (const [name, way, expected] of cases) {
      const results = await run({ ...way, family });
      deepStrictEqual(rtts(results), expected, `IPv${family}: ${name}`);
      if (expected[0] === undefined) strictEqual(results[0]!.error, "no answer in 1s");
    }
  }
});

Deno.test("ping() tells what a router says of that echo, and of no other", async () => {
  const error = { type: 3, code: 1 };
  const said = `host unreachable, says ${OTHER[4]}`;
  const quoted = ({ message }: IcmpMessage, change: (echo: Uint8Array) => void = () => {}) => {
    const echo = message.slice();
    echo[0] = 8;
    change(echo);
    return { from: OTHER[4], waitedMs: 0, message: echo, error };
  };
  const turned = (offset: number) => (reply: IcmpMessage) =>
    quoted(reply, (echo) => echo[offset]! ^= 1);
  const cases: [string, (reply: IcmpMessage) => IcmpMessage, string][] = [
    ["that echo", quoted, said],
    ["the start of it", (reply) => {
      const message = quoted(reply);
      return { ...message, message: message.message.slice(0, DATA) };
    }, said],
    ["cut short", (reply) => ({ ...quoted(reply), message: new Uint8Array(7) }), "no answer in 1s"],
    ["another identifier", turned(IDENTIFIER), "no answer in 1s"],
    ["another sequence number", turned(SEQUENCE), "no answer in 1s"],
    ["other data", turned(DATA), "no answer in 1s"],
    ["an echo reply", turned(0), "no answer in 1s"],
  ];
  for (const [name, message, expected] of cases) {
    const answer = (reply: IcmpMessage) => [{ afterMs: DELAY_MS, message: message(reply) }];
    const [result] = await run({ answer });
    deepStrictEqual([result!.error, result!.rttMs], [expected, undefined], name);
  }
});

Deno.test("ping() counts answers once, and to the echo that they answer", async () => {
  const cases: [string, Way["answer"], (number | undefined)[]][] = [
    ["twice", (message) => [{ afterMs: 10, message }, { afterMs: 15, message }], [10, 10, 10]],
    ["the second one overtaken", (message) => {
      const sequence = message.message[SEQUENCE + 1]!;
      return [{ afterMs: sequence === 2 ? 500 : 10, message }];
    }, [10, 500, 10]],
    ["the second one lost", (message) => {
      return message.message[SEQUENCE + 1] === 2 ? [] : [{ afterMs: 10, message }];
    }, [10, undefined, 10]],
  ];
  for (const [name, answer, expected] of cases) {
    const results = await run({ count: 3, ...(answer ? { answer } : {}) });
    deepStrictEqual(rtts(results), expected, name);
    deepStrictEqual(results.map(({ sequence }) => sequence), [1, 2, 3], name);
  }
});

Deno.test("ping() goes on after sequence number 65535", async () => {
  // The pause between probes takes no time, and the limit never comes.
  const clock: Clock = {
    nowMs: () => 0,
    wallMs: () => 0,
    timer: () => ({ [Symbol.dispose]() {} }),
    sleep: (ms, signal) =>
      ms < 1000 ? Promise.resolve() : new Promise((_, reject) => {
        signal!.addEventListener("abort", () => reject(signal!.reason));
      }),
  };
  const open: OpenEchoSocket = (family, onMessage) => ({
    setsIdentifier: false,
    send(echo, from) {
      const message = toReply(family, echo, undefined);
      queueMicrotask(() => onMessage({ from, waitedMs: 0, message }));
    },
    [Symbol.dispose]() {},
  });
  const random = (length: number) => new Uint8Array(length);
  const limits = { count: 65_540, intervalMs: 1, timeoutMs: 1000, sizeBytes: 8 };
  const results = await ping(TARGET[4], { ...limits, clock, random, open });
  strictEqual(results.length, 65_540);
  ok(results.every(({ rttMs }) => rttMs === 0));
});

Deno.test("ping() says why it could not send", async () => {
  const cases: [number, RegExp][] = [
    [101, /^this host has no route to it$/],
    [113, /^this host has no route to it$/],
    [90, /larger than the path/],
    [1, /firewall/],
    [105, /^ping 10\.0\.0\.2 failed: ENOBUFS$/],
  ];
  for (const [errno, expected] of cases) {
    const [result] = await run({ errno });
    ok(expected.test(result!.error!), result!.error);
    strictEqual(result!.rttMs, undefined);
  }
});

Deno.test("ping() fails where there can be no socket", async () => {
  const open = (): EchoSocket => {
    throw new IcmpNotAllowedError(new SystemError("socket", 1));
  };
  const clock = new VirtualClock();
  const random = (length: number) => new Uint8Array(length);
  const options = { count: 1, intervalMs: 1, timeoutMs: 1, clock, random, open };
  await rejects(
    ping("10.0.0.2" as Ip, options),
    (error) => error instanceof IcmpNotAllowedError && /CAP_NET_RAW/.test(error.hint),
  );
});
