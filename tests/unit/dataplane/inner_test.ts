/** What inner packets may say. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseCidr, parseIp } from "../../../lib/addr.ts";
import type { InnerLimits } from "../../../lib/dataplane/mod.ts";
import { Arena } from "../../../lib/engine/arena.ts";
import { InnerCheck, refusesPacket } from "../../../lib/engine/inner_check.ts";
import { networkOf } from "../../../lib/engine/tables.ts";
import { packet } from "../../fakes/packets.ts";
import { InnerGuard, udpDestination } from "../../inner_guard.ts";

/** Of the engine, and the slow way: they agree. */
class Guards {
  readonly #slow: InnerGuard;
  readonly #limits: InnerLimits;

  constructor(limits: InnerLimits) {
    this.#slow = new InnerGuard(limits);
    this.#limits = limits;
  }

  refusesIn(bytes: Uint8Array): string | undefined {
    const reason = refusesPacket(this.#limits, bytes);
    strictEqual(this.#slow.refusesIn(bytes), reason);
    return reason;
  }

  refusesOut(bytes: Uint8Array): string | undefined {
    const { sources } = this.#limits;
    const check = new InnerCheck(sources ? { sources: sources.map(networkOf) } : {});
    const version = bytes[0]! >> 4 === 4 ? 4 : 6;
    const reason = check.refusesOut(new Arena(bytes.slice().buffer), 0, version);
    strictEqual(this.#slow.refusesOut(bytes), reason);
    return reason;
  }
}

const cidrs = (...texts: string[]) => texts.map(parseCidr);
const HERE = "10.0.0.1";
const THERE = "10.0.0.2";

Deno.test("inner packets: from the far end's addresses only, for what it may reach", () => {
  const guard = new Guards({
    sources: cidrs("10.0.0.2/32", "192.168.7.0/24", "fd00::2/128"),
    destinations: cidrs("10.0.0.1/32", "fd00::1/128"),
  });
  const cases: [from: string, to: string, reason: string | undefined][] = [
    [THERE, HERE, undefined],
    ["192.168.7.9", HERE, undefined],
    [THERE, HERE, undefined],
    ["fd00::2", "fd00::1", undefined],
    ["10.0.0.3", HERE, "wrong-inner-address"],
    ["192.168.8.1", HERE, "wrong-inner-address"],
    ["0.0.0.0", HERE, "wrong-inner-address"],
    ["fe80::1", "ff02::1", "wrong-inner-address"],
    ["fd00::3", "fd00::1", "wrong-inner-address"],
    [THERE, "192.168.1.5", "out-of-reach"],
    [THERE, "127.0.0.1", "out-of-reach"],
    [THERE, "10.0.0.255", "out-of-reach"],
    ["fd00::2", "fd00::9", "out-of-reach"],
  ];
  for (const [from, to, reason] of cases) {
    strictEqual(guard.refusesIn(packet(from, to)), reason, `${from} to ${to}`);
  }
});

/** A packet that another quotes. */
const quoted = (from: string, to: string) => [...packet(from, to, { body: new Array(8).fill(0) })];

Deno.test("inner packets: errors of ICMP are about packets that went to the far end", () => {
  const guard = new Guards({
    sources: cidrs("10.0.0.2/32", "192.168.7.0/24", "fd00::2/128"),
  });
  const head = (type: number) => [type, 0, 0, 0, 0, 0, 0, 0];
  const [about, other] = [quoted(HERE, THERE), quoted(HERE, "10.0.0.3")];
  const [about6, other6] = [quoted("fd00::1", "fd00::2"), quoted("fd00::1", "fd00::3")];
  const refused = "wrong-inner-address";
  const cases: [version: 4 | 6, body: number[], reason: string | undefined][] = [
    ...[3, 4, 11, 12].flatMap((type): [4, number[], string | undefined][] => [
      [4, [...head(type), ...about], undefined],
      [4, [...head(type), ...other], refused],
      [4, [...head(type), ...about.slice(0, 19)], refused],
    ]),
    [4, [...head(3), ...quoted(HERE, "192.168.7.9")], undefined],
    [4, [...head(8), ...other], undefined],
    [4, [...head(0), ...other], undefined],
    ...[1, 2, 3, 4].flatMap((type): [6, number[], string | undefined][] => [
      [6, [...head(type), ...about6], undefined],
      [6, [...head(type), ...other6], refused],
      [6, [...head(type), ...about6.slice(0, 39)], refused],
    ]),
    [6, [...head(128), ...other6], undefined],
  ];
  for (const [version, body, reason] of cases) {
    const [from, to] = version === 4 ? [THERE, HERE] : ["fd00::2", "fd00::1"];
    const error = packet(from, to, { protocol: version === 4 ? 1 : 58, body });
    strictEqual(guard.refusesIn(error), reason, `IPv${version} ${body}`);
    strictEqual(new Guards({}).refusesIn(error), undefined, "without limits");
  }
});

Deno.test("inner packets: for the far end's addresses only go out", () => {
  const guard = new Guards({ sources: cidrs("10.0.0.2/32", "192.168.7.0/24") });
  strictEqual(guard.refusesOut(packet(HERE, THERE)), undefined);
  strictEqual(guard.refusesOut(packet("10.0.0.9", "192.168.7.1")), undefined);
  strictEqual(guard.refusesOut(packet(HERE, "10.0.0.3")), "not-for-peer");
  strictEqual(guard.refusesOut(packet("fe80::1", "ff02::2")), "not-for-peer");
});

Deno.test("inner packets: without limits all but messages of routers, and no multicast source is good", () => {
  const all = new Guards({});
  strictEqual(all.refusesIn(packet("203.0.113.9", "224.0.0.5")), undefined);
  strictEqual(all.refusesOut(packet("203.0.113.9", "224.0.0.5")), undefined);
  const scoped = new Guards({ sources: cidrs("224.0.0.0/4", "ff00::/8", "fe80::/10") });
  strictEqual(scoped.refusesIn(packet("224.0.0.5", HERE)), "wrong-inner-address");
  strictEqual(scoped.refusesIn(packet("fe80::1", "ff02::5")), undefined);
  const messages: [string, string, number, number, string | undefined][] = [
    [THERE, HERE, 1, 5, "router-message"],
    [THERE, HERE, 1, 8, undefined],
    ["fe80::1", "ff02::1", 58, 134, "router-message"],
    ["fe80::1", "ff02::1", 58, 137, "router-message"],
    ["fe80::1", "ff02::1", 58, 135, undefined],
  ];
  for (const [from, to, protocol, type, reason] of messages) {
    strictEqual(all.refusesIn(packet(from, to, { protocol, body: [type, 0] })), reason);
  }
});

Deno.test("inner packets: messages of routers are known behind extension headers", () => {
  const all = new Guards({});
  const [ra, hopByHop, options, fragment, later] = [
    ...[[134, 0], [60, 0, 0, 0, 0, 0, 0, 0], [58, 1, ...new Array(14).fill(0)]],
    ...[[58, 0, 0, 1, 0, 0, 0, 1], [58, 0, 0, 8, 0, 0, 0, 1]],
  ];
  const cases: [protocol: number, body: number[], reason: string | undefined][] = [
    [60, [...options!, ...ra!], "router-message"],
    [0, [...hopByHop!, ...options!, ...ra!], "router-message"],
    [44, [...fragment!, ...ra!], "router-message"],
    [44, [...later!, ...ra!], undefined],
    [51, [58, 4, ...new Array(22).fill(0), ...ra!], "router-message"],
    [60, [...options!, 135, 0], undefined],
    [60, options!.slice(0, 7), undefined],
    [60, [60, 255, 0, 0, 0, 0, 0, 0], undefined],
  ];
  for (const [protocol, body, reason] of cases) {
    strictEqual(all.refusesIn(packet("fe80::1", "ff02::1", { protocol, body })), reason, `${body}`);
  }
});

Deno.test("udpDestination() of what comes from our port", () => {
  const isOurs = (port: number) => port === 7777;
  const udp = (from: number) => [from >> 8, from & 255, 0x1f, 0x90, 0, 8, 0, 0];
  const to = (body: number[], options = {}) =>
    udpDestination(packet(HERE, "198.51.100.1", { protocol: 17, body, ...options }), isOurs);
  deepStrictEqual(to(udp(7777)), { ip: parseIp("198.51.100.1"), port: 8080 });
  strictEqual(to(udp(7778)), undefined);
  strictEqual(to(udp(7777), { protocol: 6 }), undefined);
  strictEqual(to(udp(7777), { fragmentOffset: 8 }), undefined);
  strictEqual(to([0x1e, 0x61]), undefined);
  const ipv6 = packet("fd00::1", "2001:db8::9", { protocol: 17, body: udp(7777) });
  deepStrictEqual(udpDestination(ipv6, isOurs), { ip: parseIp("2001:db8::9"), port: 8080 });
});
