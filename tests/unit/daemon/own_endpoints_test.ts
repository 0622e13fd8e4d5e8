/** When this node asks how it is seen, and what it tells of that, under virtual time. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import {
  type Endpoint,
  type Family,
  familyOf,
  formatEndpoint,
  type Ip,
  parseCidr,
  parseEndpoint,
  parseIp,
} from "../../../lib/addr.ts";
import { OwnEndpoints, SETTLE_MS } from "../../../lib/daemon/own/own_endpoints.ts";
import { silentLog } from "../../../lib/edges.ts";
import type { Link } from "../../../lib/netlink.ts";
import type { StunServer } from "../../../lib/stun/mod.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const PORT = 7777;
const RTT_MS = 10;
const SERVERS = ["198.51.100.1:3478", "[2001:db8::1]:3478"];
const LINK: Link = {
  ifindex: 2,
  name: "eth0",
  mtu: 1500,
  up: true,
  running: true,
  stats: {} as never,
};

const ELSEWHERE = parseEndpoint("198.51.100.1:3480");

interface HostOptions {
  families?: readonly Family[];
  stunServers?: readonly string[];
}

/** A host whose addresses and NATs change as a test says. */
class FakeHost {
  readonly clock = new VirtualClock();
  /** What happened, each line with the time in ms. */
  readonly events: string[] = [];
  ips: Ip[] = [parseIp("10.0.0.2")];
  /** What STUN servers see, and after how long they answer; undefined: they do not. */
  readonly seen = new Map<Family, { as: string; afterMs: number } | undefined>();
  /** What is seen by a server that the host has not sent to lately. */
  seenElsewhere: string | undefined;
  portMapped: Endpoint | undefined;
  readonly own: OwnEndpoints;

  constructor({ families = [4], stunServers = SERVERS }: HostOptions = {}) {
    this.isSeenAs("203.0.113.1:7777");
    const { clock } = this;
    this.own = new OwnEndpoints({
      rtnl: {
        links: () => [LINK],
        addresses: () => this.ips.map((local) => ({ ifindex: 2, local, prefixLength: 24 })),
        tryRouteTo: () => ({}) as never,
      },
      port: PORT,
      families,
      overlay: () => parseCidr("100.64.0.1/24"),
      interfaces: { advertise: [], exclude: [] },
      stun: { query: (servers, { timeoutMs }) => this.#answer(servers, timeoutMs) },
      stunServers: () => stunServers,
      given: [],
      portMapped: () => this.portMapped,
      clock,
      log: silentLog,
      onChange: (list) => {
        this.#happened(`tells ${list.map(({ endpoint }) => formatEndpoint(endpoint)).join(" ")}`);
      },
      onMoved: (what) => this.#happened(`moved: ${what}`),
      onBack: (sinceMs) => this.#happened(`back after ${this.clock.nowMs() - sinceMs} ms`),
    });
  }

  isSeenAs(as: string, afterMs = RTT_MS): void {
    this.seen.set(familyOf(parseEndpoint(as).ip), { as, afterMs });
  }

  at(ms: number, what: () => void): this {
    this.clock.after(ms, what);
    return this;
  }

  /** Runs for so long, and resolves to what happened. */
  async runFor(ms: number): Promise<string[]> {
    const stop = new AbortController();
    this.at(ms, () => stop.abort());
    await this.clock.until(this.own.run(stop.signal));
    return this.events;
  }

  /** As the daemon does when no direct path is found. */
  lookElsewhere(): void {
    void this.own.lookElsewhere(new AbortController().signal);
  }

  #happened(what: string): void {
    this.events.push(`${this.clock.nowMs()} ${what}`);
  }

  async #answer(servers: readonly StunServer[], timeoutMs: number) {
    const [server] = servers;
    const family = familyOf(server!.endpoint.ip);
    if (server!.endpoint.port === ELSEWHERE.port) return await this.#answerElsewhere(server!);
    this.#happened(`asks over IPv${family}`);
    const seen = this.seen.get(family);
    await this.clock.sleep(seen?.afterMs ?? timeoutMs);
    if (!seen) return [];
    const mapped = parseEndpoint(seen.as);
    return [{ server: server!, mapped, rttMs: seen.afterMs, other: ELSEWHERE }];
  }

  async #answerElsewhere(server: StunServer) {
    this.#happened("asks elsewhere");
    await this.clock.sleep(RTT_MS);
    if (!this.seenElsewhere) return [];
    return [{ server, mapped: parseEndpoint(this.seenElsewhere), rttMs: RTT_MS }];
  }
}

const HOME = "10.0.0.2:7777 203.0.113.1:7777";

Deno.test("OwnEndpoints tells once what it learns, and asks on each 20 s", async () => {
  deepStrictEqual(await new FakeHost().runFor(50_000), [
    "0 asks over IPv4",
    `10 tells ${HOME}`,
    "20010 asks over IPv4",
    "40020 asks over IPv4",
  ]);
});

Deno.test("OwnEndpoints tells of local addresses where there is no STUN server", async () => {
  deepStrictEqual(await new FakeHost({ stunServers: [] }).runFor(50_000), [
    "0 tells 10.0.0.2:7777",
  ]);
});

Deno.test("OwnEndpoints lets peers hear from a mapping that is another", async () => {
  const host = new FakeHost();
  host.at(5_000, () => host.isSeenAs("203.0.113.1:40000"));
  deepStrictEqual((await host.runFor(30_000)).slice(2), [
    "20010 asks over IPv4",
    "20020 tells 10.0.0.2:7777 203.0.113.1:40000",
    "20020 moved: mapping",
  ]);
});

Deno.test("OwnEndpoints lets peers hear from another address before STUN has answered", async () => {
  const host = new FakeHost();
  const move = (ip: string) => () => {
    host.ips = [parseIp(ip)];
    host.own.look();
  };
  // Several changes in a row are one.
  host.at(5_000, move("10.0.9.8")).at(5_100, move("10.0.9.9"));
  deepStrictEqual((await host.runFor(10_000)).slice(2), [
    `${5_000 + SETTLE_MS} moved: address`,
    `${5_000 + SETTLE_MS} asks over IPv4`,
    "5210 tells 10.0.9.9:7777 203.0.113.1:7777",
    "5210 moved: more",
  ]);
});

Deno.test("OwnEndpoints tells of one endpoint more as of more", async () => {
  const host = new FakeHost();
  host.at(5_000, () => {
    host.portMapped = parseEndpoint("203.0.113.1:5000");
    host.own.look();
  });
  deepStrictEqual((await host.runFor(10_000)).slice(2), [
    "5200 asks over IPv4",
    "5210 tells 10.0.0.2:7777 203.0.113.1:5000 203.0.113.1:7777",
    "5210 moved: more",
  ]);
});

Deno.test("OwnEndpoints does not miss what changes while STUN is asked", async () => {
  const host = new FakeHost();
  host.isSeenAs("203.0.113.1:7777", 1_000);
  host.at(500, () => host.own.look());
  deepStrictEqual(await host.runFor(5_000), [
    "0 asks over IPv4",
    `1000 tells ${HOME}`,
    "1200 asks over IPv4",
  ]);
});

Deno.test("OwnEndpoints asks when it is doubted, at most each 250 ms", async () => {
  const host = new FakeHost();
  host.at(5_000, () => {
    host.isSeenAs("203.0.113.1:40000");
    host.own.doubt();
  });
  for (const ms of [5_050, 5_100, 5_150]) host.at(ms, () => host.own.doubt());
  deepStrictEqual((await host.runFor(10_000)).slice(2), [
    "5000 asks over IPv4",
    "5010 tells 10.0.0.2:7777 203.0.113.1:40000",
    "5010 moved: mapping",
    "5250 asks over IPv4",
  ]);
});

Deno.test("OwnEndpoints tells soon what one family says while the other is silent", async () => {
  const host = new FakeHost({ families: [4, 6] });
  host.isSeenAs("[2001:db8:1::2]:7777", 1_500);
  deepStrictEqual(await host.runFor(10_000), [
    "0 asks over IPv4",
    "0 asks over IPv6",
    `110 tells ${HOME}`,
    `1500 tells ${HOME} [2001:db8:1::2]:7777`,
    "1500 moved: more",
  ]);
});

Deno.test("OwnEndpoints tells what both families say at once where both answer", async () => {
  const host = new FakeHost({ families: [4, 6] });
  host.isSeenAs("[2001:db8:1::2]:7777", 50);
  deepStrictEqual((await host.runFor(10_000)).slice(2), [
    `50 tells ${HOME} [2001:db8:1::2]:7777`,
  ]);
});

Deno.test("OwnEndpoints keeps what it knew while STUN is silent, and looks often for it", async () => {
  const host = new FakeHost();
  host.at(10_000, () => host.seen.delete(4)).at(25_000, () => host.isSeenAs("203.0.113.1:7777"));
  deepStrictEqual((await host.runFor(40_000)).slice(2), [
    "20010 asks over IPv4",
    "23510 asks over IPv4",
    "27210 asks over IPv4",
    "27220 back after 4210 ms",
  ]);
});

Deno.test("OwnEndpoints looks less often for STUN that is silent for long", async () => {
  const host = new FakeHost();
  host.seen.delete(4);
  const asked = (await host.runFor(700_000)).filter((event) => event.endsWith("asks over IPv4"))
    .map((event) => Number(event.split(" ")[0]));
  const gaps = asked.slice(1).map((ms, i) => ms - asked[i]!);
  deepStrictEqual(gaps, gaps.toSorted((a, b) => a - b));
  strictEqual(gaps[0], 3_500);
  strictEqual(gaps.at(-1), 23_000);
});

Deno.test("OwnEndpoints tells of the port that those see whom it has not sent to yet", async () => {
  const host = new FakeHost();
  host.seenElsewhere = "203.0.113.1:35150";
  host.at(500, () => strictEqual(host.own.seenByNewcomers?.port, 7777));
  for (const ms of [1_000, 2_000]) host.at(ms, () => host.lookElsewhere());
  host.at(3_000, () => strictEqual(host.own.seenByNewcomers?.port, 35150));
  host.at(40_000, () => host.seenElsewhere = "203.0.113.1:35151");
  for (const ms of [40_000, 80_000, 120_000, 170_000]) host.at(ms, () => host.lookElsewhere());
  const events = await host.runFor(180_000);
  deepStrictEqual(events.filter((event) => !event.endsWith("IPv4")).slice(1), [
    "1000 asks elsewhere",
    `1010 tells ${HOME} 203.0.113.1:35150`,
    "1010 moved: more",
    "40000 asks elsewhere",
    `40010 tells ${HOME} 203.0.113.1:35151 203.0.113.1:35150`,
    "40010 moved: more",
    "170000 asks elsewhere",
  ]);
});

Deno.test("OwnEndpoints tells nothing when everybody sees the same port", async () => {
  const host = new FakeHost();
  host.seenElsewhere = "203.0.113.1:7777";
  host.at(1_000, () => host.lookElsewhere());
  deepStrictEqual((await host.runFor(10_000)).slice(2), ["1000 asks elsewhere"]);
});

Deno.test("OwnEndpoints forgets what others saw when its mapping is another", async () => {
  const host = new FakeHost();
  host.seenElsewhere = "203.0.113.1:35150";
  host.at(1_000, () => host.lookElsewhere());
  host.at(5_000, () => host.isSeenAs("203.0.113.9:7777"));
  deepStrictEqual((await host.runFor(30_000)).slice(-2), [
    "20020 tells 10.0.0.2:7777 203.0.113.9:7777",
    "20020 moved: mapping",
  ]);
});

Deno.test("OwnEndpoints leaves one of two servers of one host for when it looks elsewhere", async () => {
  const host = new FakeHost({ stunServers: ["198.51.100.1:3478", "198.51.100.1:3480"] });
  host.at(1_000, () => host.lookElsewhere());
  deepStrictEqual(await host.runFor(10_000), [
    "0 asks over IPv4",
    `10 tells ${HOME}`,
    "1000 asks elsewhere",
  ]);
});
