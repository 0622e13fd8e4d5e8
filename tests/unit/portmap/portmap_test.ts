/** Mappings as a host keeps them, of a gateway in memory, in virtual time. */
import {
  deepStrictEqual,
  match,
  notStrictEqual,
  ok,
  rejects,
  strictEqual,
} from "node:assert/strict";
import { type Endpoint, formatEndpoint, parseIp } from "../../../lib/addr.ts";
import { fromHex } from "../../../lib/bytes.ts";
import type { Datagram, Random } from "../../../lib/edges.ts";
import { type Attempt, type Attempts, choose } from "../../../lib/portmap/establish.ts";
import {
  isPublicEndpoint,
  mapPort,
  type MapPortOptions,
  NoPortMappingError,
  type PortMapping,
  type PortMapProtocol,
  probePortMapping,
  PROTOCOLS,
} from "../../../lib/portmap/mod.ts";
import type { PortMapper } from "../../../lib/portmap/protocol.ts";
import {
  FakeGateway,
  type FakePage,
  GATEWAY,
  LOCAL,
  wellFormed,
  type WireAnswer,
} from "../../fakes/gateway.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const PORT = 7777;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

/** Counts up, so that every nonce is another. */
function countingRandom(): Random {
  let next = 0;
  return (length) => Uint8Array.from({ length }, () => next++ & 0xff);
}

interface World {
  clock: VirtualClock;
  gateway: FakeGateway;
  /** What `onChange` was told. */
  changes: (string | undefined)[];
  map(options?: Partial<MapPortOptions>): Promise<PortMapping>;
  /** Lets time pass. */
  pass(ms: number): Promise<void>;
}

function newWorld(...speaks: PortMapProtocol[]): World {
  const clock = new VirtualClock();
  const gateway = new FakeGateway(clock, ...speaks);
  const changes: (string | undefined)[] = [];
  const random = countingRandom();
  const onChange = (external: Endpoint | undefined) =>
    changes.push(external && formatEndpoint(external));
  const base = { gateway: GATEWAY, local: LOCAL, internalPort: PORT, net: gateway };
  return {
    clock,
    gateway,
    changes,
    map: (options) => clock.until(mapPort({ ...base, clock, random, onChange, ...options })),
    pass: (ms) => clock.until(clock.sleep(ms)),
  };
}

/** Disposes in virtual time; nothing may be left open. */
async function end({ clock, gateway }: World, mapping: PortMapping): Promise<void> {
  await clock.until(Promise.resolve(mapping[Symbol.asyncDispose]()));
  strictEqual(gateway.openSockets, 0);
}

const count = (world: World, text: string) =>
  world.gateway.log.filter((line) => line === text).length;

/** The request that makes or renews a mapping. */
const MAP_LINE: Record<PortMapProtocol, string> = {
  pcp: "pcp map",
  natpmp: "natpmp map",
  upnp: "upnp AddPortMapping",
};

for (const protocol of PROTOCOLS) {
  Deno.test(`${protocol}: a mapping is made, renewed at half of its lifetime, deleted`, async () => {
    const world = newWorld(protocol);
    const { gateway } = world;
    const mapping = await world.map({ checkMs: 10 * MINUTE_MS });
    strictEqual(mapping.protocol, protocol);
    deepStrictEqual(mapping.external, { ip: gateway.externalIp, port: PORT });
    strictEqual(mapping.isPublic, true);
    strictEqual(mapping.lifetimeSeconds, 7200);
    deepStrictEqual(gateway.ports, [PORT]);
    strictEqual(count(world, MAP_LINE[protocol]), 1);
    await world.pass(HOUR_MS - MINUTE_MS);
    strictEqual(count(world, MAP_LINE[protocol]), 1);
    await world.pass(2 * MINUTE_MS);
    strictEqual(count(world, MAP_LINE[protocol]), 2);
    await world.pass(10 * HOUR_MS);
    deepStrictEqual(gateway.ports, [PORT]);
    strictEqual(count(world, MAP_LINE[protocol]), 12);
    await end(world, mapping);
    deepStrictEqual(gateway.ports, []);
    deepStrictEqual(world.changes, []);
    const { length } = gateway.log;
    await mapping[Symbol.asyncDispose]();
    await world.pass(10 * HOUR_MS);
    strictEqual(gateway.log.length, length, "still talking after the end");
  });

  Deno.test(`${protocol}: a gateway that lost everything is asked again within a minute`, async () => {
    const world = newWorld(protocol);
    const mapping = await world.map();
    await world.pass(10 * MINUTE_MS);
    world.gateway.restart();
    deepStrictEqual(world.gateway.ports, []);
    await world.pass(MINUTE_MS + 1000);
    deepStrictEqual(world.gateway.ports, [PORT]);
    deepStrictEqual(world.changes, []); // the endpoint is what it was
    await end(world, mapping);
  });

  Deno.test(`${protocol}: another external address is told, by the next renewal at the latest`, async () => {
    const world = newWorld(protocol);
    const mapping = await world.map();
    world.gateway.externalIp = parseIp("203.0.113.9");
    await world.pass(HOUR_MS + MINUTE_MS);
    deepStrictEqual(world.changes, [`203.0.113.9:${PORT}`]);
    strictEqual(formatEndpoint(mapping.external!), `203.0.113.9:${PORT}`);
    await end(world, mapping);
  });

  Deno.test(`${protocol}: a gateway that falls silent, and comes back`, async () => {
    const world = newWorld(protocol);
    const mapping = await world.map({ lifetimeSeconds: 600 });
    world.gateway.speaks.clear();
    await world.pass(5 * MINUTE_MS);
    notStrictEqual(mapping.external, undefined, "given up before it has expired");
    await world.pass(7 * MINUTE_MS);
    strictEqual(mapping.external, undefined);
    strictEqual(mapping.isPublic, false);
    deepStrictEqual(world.changes, [undefined]);
    world.gateway.speaks.add(protocol);
    await world.pass(2 * MINUTE_MS);
    deepStrictEqual(world.changes, [undefined, `${world.gateway.externalIp}:${PORT}`]);
    strictEqual(mapping.isPublic, true);
    await end(world, mapping);
    deepStrictEqual(world.gateway.ports, []);
  });

  Deno.test(`${protocol}: lost datagrams are sent again`, async () => {
    const world = newWorld(protocol);
    world.gateway.losses = protocol === "upnp" ? 8 : 2;
    const mapping = await world.map({ protocols: [protocol] });
    strictEqual(mapping.protocol, protocol);
    ok(world.clock.nowMs() < 1000, `${world.clock.nowMs()} ms`);
    await end(world, mapping);
  });

  Deno.test(`${protocol}: another NAT above the gateway`, async () => {
    for (const ip of ["192.168.0.2", "100.64.3.4", "10.0.0.1", "169.254.1.1", "127.0.0.1"]) {
      const world = newWorld(protocol);
      world.gateway.externalIp = parseIp(ip);
      const mapping = await world.map();
      deepStrictEqual(mapping.external, { ip, port: PORT });
      strictEqual(mapping.isPublic, false, ip);
      await end(world, mapping);
    }
  });
}

Deno.test("another external address is told within a minute where one can ask for it", async () => {
  for (const protocol of ["natpmp", "upnp"] as const) {
    const world = newWorld(protocol);
    const mapping = await world.map();
    world.gateway.externalIp = parseIp("203.0.113.9");
    await world.pass(MINUTE_MS + 1000);
    deepStrictEqual(world.changes, [`203.0.113.9:${PORT}`], protocol);
    await end(world, mapping);
  }
});

Deno.test("what a gateway lost and does not grant again is lost at once", async () => {
  const world = newWorld("pcp");
  const mapping = await world.map();
  world.gateway.restart();
  world.gateway.result.pcp = 8;
  await world.pass(2 * MINUTE_MS);
  deepStrictEqual(world.changes, [undefined]);
  const requests = count(world, "pcp map");
  await end(world, mapping);
  strictEqual(count(world, "pcp map"), requests, "deleted what was lost");
});

Deno.test("isPublicEndpoint(): what others can send to", () => {
  const cases: [string, number, boolean][] = [
    ["198.51.100.7", 7777, true],
    ["2001:db8::1", 7777, true],
    ["198.51.100.7", 0, false],
    ["0.0.0.0", 7777, false],
    ["100.127.255.255", 7777, false],
    ["fd00::1", 7777, false],
    ["224.0.0.1", 7777, false],
  ];
  for (const [ip, port, expected] of cases) {
    strictEqual(isPublicEndpoint({ ip: parseIp(ip), port }), expected, `${ip}:${port}`);
  }
});

// --- which protocol

Deno.test("choose(): the best that answers within a second", () => {
  const attempt: Record<string, (protocol: PortMapProtocol) => Attempt> = {
    "+": (protocol) => ({ kind: "found", mapper: { protocol } as PortMapper }),
    "?": () => ({ kind: "asking" }),
    "-": () => ({ kind: "failed", why: "no" }),
  };
  const attempts = (text: string): Attempts =>
    new Map(
      PROTOCOLS.map((protocol, i) => [protocol, attempt[text[i]!]] as const)
        .flatMap(([protocol, make]) => make ? [[protocol, make(protocol)] as const] : []),
    );
  const cases: [string, number, string][] = [
    // In the order of PROTOCOLS: + found, ? asking, - failed, a space: not tried.
    ["???", 0, "wait"],
    ["+??", 0, "pcp"],
    ["?+?", 10, "wait"],
    ["?+?", 1000, "natpmp"],
    ["??+", 999, "wait"],
    ["??+", 1000, "upnp"],
    ["-+?", 10, "natpmp"],
    ["-?+", 10, "wait"],
    ["--+", 10, "upnp"],
    ["--?", 2000, "wait"],
    ["---", 10, "none"],
    ["  +", 0, "upnp"],
    [" + ", 0, "natpmp"],
    ["+++", 2000, "pcp"],
  ];
  for (const [text, waitedMs, expected] of cases) {
    const choice = choose(attempts(text), waitedMs);
    strictEqual(typeof choice === "string" ? choice : choice.protocol, expected, text);
  }
});

const PREFERRED: [string, PortMapProtocol[], Partial<FakeGateway["delayMs"]>, string, number][] = [
  ["all are there", ["pcp", "natpmp", "upnp"], {}, "pcp", 100],
  ["PCP is slow", ["pcp", "natpmp", "upnp"], { pcp: 600 }, "pcp", 1300],
  ["PCP is too slow", ["pcp", "natpmp", "upnp"], { pcp: 1500 }, "natpmp", 1100],
  ["NAT-PMP says that it is no PCP", ["natpmp", "upnp"], {}, "natpmp", 100],
  ["UPnP alone is not known to be alone", ["upnp"], {}, "upnp", 1100],
  ["UPnP alone and slow", ["upnp"], { upnp: 400 }, "upnp", 2500],
];

for (const [name, speaks, delayMs, expected, withinMs] of PREFERRED) {
  Deno.test(`mapPort() prefers: ${name}`, async () => {
    const world = newWorld(...speaks);
    Object.assign(world.gateway.delayMs, delayMs);
    const mapping = await world.map();
    strictEqual(mapping.protocol, expected);
    ok(world.clock.nowMs() <= withinMs, `${world.clock.nowMs()} ms`);
    strictEqual(world.gateway.openSockets, 1); // the one that hears announcements
    await end(world, mapping);
  });
}

Deno.test("a protocol that refuses makes way for the next", async () => {
  const world = newWorld("pcp", "natpmp", "upnp");
  world.gateway.result = { pcp: 2, natpmp: 4 };
  const mapping = await world.map();
  strictEqual(mapping.protocol, "upnp");
  await end(world, mapping);
});

Deno.test("a gateway that no longer speaks a protocol is asked by another", async () => {
  const world = newWorld("pcp", "natpmp");
  const mapping = await world.map();
  world.gateway.restart();
  world.gateway.speaks.delete("pcp");
  await world.pass(2 * MINUTE_MS);
  strictEqual(mapping.protocol, "natpmp");
  deepStrictEqual(world.gateway.ports, [PORT]);
  await end(world, mapping);
});

Deno.test("nobody answers: given up within 3 s, with the reasons", async () => {
  const world = newWorld();
  await rejects(world.map(), (error: unknown) => {
    ok(error instanceof NoPortMappingError);
    deepStrictEqual(error.reasons, { pcp: "no answer", natpmp: "no answer", upnp: "no answer" });
    match(error.message, /192\.168\.1\.1: PCP: no answer; NAT-PMP: no answer; UPnP: no answer$/);
    return true;
  });
  ok(world.clock.nowMs() <= 3000, `${world.clock.nowMs()} ms`);
  strictEqual(world.gateway.openSockets, 0);
});

Deno.test("all refuse: the reasons", async () => {
  const world = newWorld("pcp", "natpmp", "upnp");
  world.gateway.result = { pcp: 10, natpmp: 3 };
  world.gateway.fault = (action) => action === "AddPortMapping" ? 606 : undefined;
  await rejects(world.map(), (error: unknown) => {
    ok(error instanceof NoPortMappingError);
    match(error.reasons.pcp!, /quota/);
    match(error.reasons.natpmp!, /no usable address/);
    strictEqual(error.reasons.upnp, "AddPortMapping: error 606 (no)");
    return true;
  });
});

Deno.test("mapPort() ends with the signal, at once and with its reason", async () => {
  for (const protocols of [["pcp"], ["natpmp"], ["upnp"], PROTOCOLS] as PortMapProtocol[][]) {
    const world = newWorld();
    const stop = new AbortController();
    world.clock.after(100, () => stop.abort(new Error("stopped")));
    await rejects(world.map({ signal: stop.signal, protocols }), /^Error: stopped$/);
    ok(world.clock.nowMs() <= 100, `${world.clock.nowMs()} ms`);
    strictEqual(world.gateway.openSockets, 0);
    await rejects(world.map({ signal: stop.signal, protocols }), /^Error: stopped$/);
  }
});

Deno.test("a signal ends the renewing; disposing still deletes", async () => {
  const world = newWorld("natpmp");
  const stop = new AbortController();
  const mapping = await world.map({ signal: stop.signal });
  stop.abort();
  const { length } = world.gateway.log;
  await world.pass(HOUR_MS);
  strictEqual(world.gateway.log.length, length);
  await end(world, mapping);
  deepStrictEqual(world.gateway.ports, []);
});

Deno.test("refresh() renews at once", async () => {
  const world = newWorld("pcp");
  const mapping = await world.map();
  mapping.refresh();
  await world.pass(100);
  strictEqual(count(world, "pcp map"), 2);
  await world.pass(30 * MINUTE_MS);
  strictEqual(count(world, "pcp map"), 2);
  await end(world, mapping);
});

Deno.test("an end that the gateway does not hear takes a second at most", async () => {
  for (const protocol of PROTOCOLS) {
    const world = newWorld(protocol);
    const mapping = await world.map();
    world.gateway.speaks.clear();
    const startMs = world.clock.nowMs();
    await end(world, mapping);
    ok(world.clock.nowMs() - startMs <= 1000);
  }
});

Deno.test("what is asked for: port, lifetime, the port of before", async () => {
  const world = newWorld("natpmp");
  const mapping = await world.map({ externalPort: 40_000, lifetimeSeconds: 600 });
  deepStrictEqual(mapping.external, { ip: world.gateway.externalIp, port: 40_000 });
  strictEqual(mapping.lifetimeSeconds, 600);
  world.gateway.restart();
  await world.pass(10 * MINUTE_MS);
  deepStrictEqual(world.gateway.ports, [40_000]);
  await end(world, mapping);
});

Deno.test("PCP: the same nonce takes a mapping over, another one is refused", async () => {
  const world = newWorld("pcp");
  const nonce = new Uint8Array(12).fill(7);
  const crashed = await world.map({ nonce });
  const again = await world.map({ nonce });
  deepStrictEqual(again.external, crashed.external);
  await rejects(world.map(), /PCP: not authorized/);
  await world.clock.until(Promise.resolve(crashed[Symbol.asyncDispose]()));
  await end(world, again);
});

Deno.test("a host that has lost its address keeps trying", async () => {
  const world = newWorld("pcp");
  const mapping = await world.map({ lifetimeSeconds: 600 });
  const { openUdp } = world.gateway;
  world.gateway.openUdp = () => {
    throw new Deno.errors.AddrNotAvailable("Cannot assign requested address");
  };
  await world.pass(15 * MINUTE_MS);
  deepStrictEqual(world.changes, [undefined]);
  world.gateway.openUdp = openUdp;
  await world.pass(2 * MINUTE_MS);
  deepStrictEqual(world.changes, [undefined, `${world.gateway.externalIp}:${PORT}`]);
  await end(world, mapping);
});

Deno.test("PCP: a granted lifetime of seconds does not make a storm", async () => {
  const world = newWorld("pcp");
  const mapping = await world.map({ lifetimeSeconds: 1 });
  await world.pass(MINUTE_MS);
  ok(count(world, "pcp map") <= 16, `${count(world, "pcp map")} requests`);
  await end(world, mapping);
});

// --- announcements

const PCP_ANNOUNCEMENT = fromHex(`02 80 00 00 00000000 00000001 ${"00".repeat(12)}`);
const NATPMP_ANNOUNCEMENT = fromHex("00 80 0000 00000001 c6336407");

Deno.test("a gateway that announces its start is asked at once", async () => {
  for (const announcement of [PCP_ANNOUNCEMENT, NATPMP_ANNOUNCEMENT]) {
    const world = newWorld("pcp");
    const mapping = await world.map();
    world.gateway.restart();
    for (let i = 0; i < 10; i++) world.gateway.announce(announcement);
    await world.pass(100);
    deepStrictEqual(world.gateway.ports, [PORT]);
    strictEqual(count(world, "pcp map"), 2);
    await world.pass(MINUTE_MS);
    world.gateway.announce(announcement);
    await world.pass(100);
    strictEqual(count(world, "pcp map"), 3);
    await end(world, mapping);
  }
});

Deno.test("what is no announcement of the gateway does nothing", async () => {
  const world = newWorld("pcp");
  const mapping = await world.map();
  for (const bytes of [PCP_ANNOUNCEMENT, NATPMP_ANNOUNCEMENT]) {
    world.gateway.announce(bytes, { ip: parseIp("192.168.1.66"), port: 5351 });
    world.gateway.announce(bytes, { ip: GATEWAY, port: 5350 });
    world.gateway.announce(bytes.subarray(0, 7));
    world.gateway.announce(bytes.map((byte, i) => i === 1 ? 0x81 : byte));
  }
  world.gateway.announce(new Uint8Array());
  await world.pass(1000);
  strictEqual(count(world, "pcp map"), 1);
  await end(world, mapping);
});

Deno.test("announcements that cannot be heard are done without", async () => {
  const world = newWorld("pcp");
  world.gateway.hasMulticast = false;
  const mapping = await world.map();
  await world.pass(2 * HOUR_MS);
  deepStrictEqual(world.gateway.ports, [PORT]);
  await end(world, mapping);
});

// --- what others send

const elsewhere = parseIp("192.168.1.66");

const DISTORTED: [string, PortMapProtocol, (answer: Datagram) => Datagram[]][] = [
  ["an answer from another address", "pcp", (a) => [forged(a, { ip: elsewhere }), a]],
  ["an answer from another address", "natpmp", (a) => [forged(a, { ip: elsewhere }), a]],
  ["an answer from another address", "upnp", (a) => [forged(a, { ip: elsewhere }), a]],
  ["an answer from another port", "pcp", (a) => [forged(a, { port: 5350 }), a]],
  ["an answer from another port", "natpmp", (a) => [forged(a, { port: 5350 }), a]],
  ["every answer twice", "pcp", (a) => [a, a]],
  ["every answer twice", "natpmp", (a) => [a, a]],
  ["every answer twice", "upnp", (a) => [a, a]],
  ["cut off answers before it", "pcp", (a) => [...prefixes(a, 24), a]],
  ["cut off answers before it", "natpmp", (a) => [...prefixes(a, 8), a]],
  ["cut off answers before it", "upnp", (a) => [...prefixes(a, 60), a]],
  ["a wrong nonce", "pcp", (a) => a.bytes.length < 60 ? [a] : [changed(a, 24, 42), a]],
  ["a wrong internal port", "pcp", (a) => a.bytes.length < 60 ? [a] : [changed(a, 40, 42), a]],
  ["a wrong protocol", "pcp", (a) => a.bytes.length < 60 ? [a] : [changed(a, 36), a]],
  ["a wrong internal port", "natpmp", (a) => a.bytes.length < 16 ? [a] : [changed(a, 8, 10), a]],
  ["a wrong version", "pcp", (a) => [changed(a, 0), a]],
  ["a wrong version", "natpmp", (a) => [changed(a, 0), a]],
  ["the answer to something else", "natpmp", (a) => [changed(a, 1), a]],
];

/** From elsewhere, and leading there. */
function forged({ bytes, from }: Datagram, place: Partial<Endpoint>): Datagram {
  const text = new TextDecoder("latin1").decode(bytes);
  const isText = text.startsWith("HTTP");
  const wrong = isText
    ? new TextEncoder().encode(text.replace(GATEWAY, elsewhere))
    : bytes.map((byte, i) => i === bytes.length - 1 ? byte ^ 0xff : byte);
  return { bytes: wrong, from: { ...from, ...place } };
}

/** With other bytes at these offsets, and a wrong end. */
function changed({ bytes, from }: Datagram, ...offsets: number[]): Datagram {
  const wrong = bytes.slice();
  for (const offset of offsets) wrong[offset]! ^= 1;
  wrong[wrong.length - 1]! ^= 0xff;
  return { bytes: wrong, from };
}

function prefixes({ bytes, from }: Datagram, length: number): Datagram[] {
  return Array.from({ length }, (_, i) => ({ bytes: bytes.subarray(0, i), from }));
}

for (const [name, protocol, distort] of DISTORTED) {
  Deno.test(`${protocol}: ${name} changes nothing`, async () => {
    const world = newWorld(protocol);
    world.gateway.distort = distort;
    const mapping = await world.map({ protocols: [protocol] });
    deepStrictEqual(mapping.external, { ip: world.gateway.externalIp, port: PORT });
    await end(world, mapping);
    deepStrictEqual(world.gateway.ports, []);
  });
}

/** Length of an answer with a mapping, and where the external port stands in it. */
const EMPTY: [PortMapProtocol, number, number][] = [["pcp", 60, 42], ["natpmp", 16, 10]];

for (const [protocol, length, offset] of EMPTY) {
  Deno.test(`${protocol}: a mapping of port 0 is none`, async () => {
    const world = newWorld(protocol);
    world.gateway.distort = ({ bytes, from }) => {
      const isPort = (i: number) => bytes.length === length && (i === offset || i === offset + 1);
      return [{ bytes: bytes.map((byte, i) => isPort(i) ? 0 : byte), from }];
    };
    await rejects(world.map({ protocols: [protocol] }), /an empty mapping was granted/);
  });
}

// --- UPnP

const page = (text: string): FakePage => ({ status: 200, text });

/** HTTP as routers speak it. */
const WIRES: [string, FakeGateway["wire"]][] = [
  ["names of headers in lower case", (p) => lines(p, (head) => head.toLowerCase())],
  ["names of headers in upper case", (p) => lines(p, (head) => head.toUpperCase())],
  ["line feeds alone", (p) => lines(p, (head) => head.replaceAll("\r", ""))],
  [
    "HTTP/1.0 without a length, closed",
    (p) => ({ pieces: [`HTTP/1.0 ${p.status}\r\n\r\n${p.text}`] }),
  ],
  ["no length and an open connection", (p) => ({
    pieces: [`HTTP/1.1 ${p.status} OK\r\n\r\n`, p.text],
    staysOpen: true,
  })],
  ["a length that is too small", (p) => lines(p, (head) => head.replace(/\d+$/, "7"))],
  ["a length that is too large", (p) => ({
    ...lines(p, (head) => head.replace(/\d+$/, "99999")),
    staysOpen: true,
  })],
  ["a length that is none", (p) => lines(p, (head) => head.replace(/\d+$/, "many"))],
  ["a line without a colon", (p) => lines(p, (head) => head.replace("\r\n", "\r\nno header\r\n"))],
  ["an empty name", (p) => lines(p, (head) => head.replace("\r\n", "\r\n: x\r\n"))],
  ["chunks", (p) => ({ pieces: chunked(p.status, [p.text]), staysOpen: true })],
  ["chunks that split the last tag", (p) => ({
    pieces: chunked(p.status, [p.text.slice(0, -4), p.text.slice(-4)]),
    staysOpen: true,
  })],
  ["chunks that are none", (p) => ({
    pieces: [`HTTP/1.1 ${p.status} OK\r\nTransfer-Encoding: Chunked\r\n\r\n`, p.text],
  })],
  ["one byte after the other", (p) => ({
    pieces: [...new TextEncoder().encode(wellFormed(p).pieces.join(""))].map((b) =>
      Uint8Array.of(b)
    ),
  })],
  ["an interim answer before", (p) => ({
    pieces: ["HTTP/1.1 100 Continue\r\n\r\n", ...wellFormed(p).pieces],
  })],
  ["an empty line before", (p) => ({ pieces: ["\r\n", ...wellFormed(p).pieces] })],
  ["a NUL after the document", (p) => wellFormed({ ...p, text: `${p.text}\0` })],
  ["junk after the document", (p) => wellFormed({ ...p, text: `${p.text}\r\n<b & \0\xff` })],
  ["no head at all", (p) => ({ pieces: [p.text] })],
];

function lines(page: FakePage, change: (head: string) => string): WireAnswer {
  const [head, body] = (wellFormed(page).pieces[0] as string).split("\r\n\r\n");
  const end = change("\r\n\r\n");
  return { pieces: [change(head!), end, body!] };
}

function chunked(status: number, parts: string[]): string[] {
  const head = `HTTP/1.1 ${status} OK\r\ntransfer-encoding: chunked\r\n\r\n`;
  const chunks = [...parts, ""].map((part) => `${part.length.toString(16)};x\r\n${part}\r\n`);
  return [head, ...chunks];
}

for (const [name, wire] of WIRES) {
  Deno.test(`UPnP: HTTP with ${name}`, async () => {
    const world = newWorld("upnp");
    world.gateway.wire = wire;
    const mapping = await world.map({ protocols: ["upnp"] });
    deepStrictEqual(mapping.external, { ip: world.gateway.externalIp, port: PORT });
    await end(world, mapping);
    deepStrictEqual(world.gateway.ports, []);
  });
}

/** Descriptions and announcements as routers have them. */
const ODD_DEVICES: [string, (gateway: FakeGateway) => void][] = [
  ["a bare ampersand and an unknown entity", (g) => {
    describe(g, (text) => text.replace("<device>", "<device><a>B & C &copy; &x</a>"));
  }],
  ["tags that do not match", (g) => {
    describe(
      g,
      (text) => text.replace("</serviceType>", "</ServiceType>").replace("</device>", ""),
    );
  }],
  [
    "names in another case",
    (g) => describe(g, (text) => text.replaceAll("serviceType", "SERVICETYPE")),
  ],
  ["a document type", (g) => describe(g, (text) => text.replace("<root", "<!DOCTYPE root><root"))],
  ["no end", (g) => describe(g, (text) => text.slice(0, text.lastIndexOf("</service>")))],
  [
    "white space in values",
    (g) => [g.serviceType, g.controlUrl] = [`\n ${g.serviceType} `, " /ctl\n"],
  ],
  ["a base that is gone", (g) => {
    g.closedPorts = [1];
    describe(
      g,
      (text) => text.replace("<device>", `<URLBase>http://${GATEWAY}:1/</URLBase><device>`),
    );
  }],
  ["URLs with its other address", (g) => {
    [g.location, g.controlUrl] = ["http://198.51.100.7:5000/d.xml", "http://0.0.0.0:5000/ctl"];
  }],
  ["URLs with its name", (g) => g.location = "http://router.lan:5000/d.xml"],
  ["a redirection", (g) => {
    g.page = () =>
      g.requests.length > 1
        ? page(g.description())
        : { status: 301, text: "", headers: ["LOCATION: http://router.lan:5000/igd.xml"] };
  }],
  ["a dead description announced first", (g) => {
    g.closedPorts = [1];
    search(g, (text) => [text.replace(":5000", ":1"), text]);
  }],
  [
    "a line without a colon in its answer",
    (g) => search(g, (text) => [text.replace("ST", "hello\r\nST")]),
  ],
  ["another device's answer before", (g) => {
    g.distort = ({ bytes, from }) => [{ bytes, from: { ...from, ip: elsewhere } }, { bytes, from }];
    g.closedPorts = [80];
  }],
  [
    "an answer of no known target",
    (g) => search(g, (text) => [text.replace(/ST: .*/, "ST: upnp:rootdevice")]),
  ],
  ["an answer from another of its addresses", (g) => {
    g.distort = ({ bytes, from }) => [{ bytes, from: { ...from, ip: elsewhere } }];
  }],
  ["only leases without an end (501)", (g) => {
    g.fault = (action, values) =>
      action === "AddPortMapping" && values.get("NewLeaseDuration") !== "0" ? 501 : undefined;
  }],
  ["version 2 without its actions (401)", (g) => {
    g.serviceType = g.serviceType.replace(/1$/, "2");
    g.fault = (action) => action === "AddAnyPortMapping" ? 401 : undefined;
  }],
  ["answers of another name", (g) => {
    g.wire = (p) => wellFormed({ ...p, text: p.text.replaceAll(/\w+Response/g, "Ok") });
  }],
  ["an empty answer to what gives nothing back", (g) => {
    g.wire = (p) => wellFormed(/<u:AddPortMappingResponse>/.test(p.text) ? page("") : p);
  }],
  ["a service before it that refuses", (g) => {
    const other =
      "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType>" +
      "<controlURL>/none</controlURL></service>";
    describe(g, (text) => text.replace("<serviceList>", `<serviceList>${other}`));
  }],
];

function describe(gateway: FakeGateway, change: (description: string) => string): void {
  gateway.page = () => page(change(gateway.description()));
}

function search(gateway: FakeGateway, change: (answer: string) => string[]): void {
  gateway.distort = ({ bytes, from }) =>
    change(new TextDecoder().decode(bytes)).map((text) => ({
      bytes: new TextEncoder().encode(text),
      from,
    }));
}

for (const [name, spoil] of ODD_DEVICES) {
  Deno.test(`UPnP: a gateway with ${name} works`, async () => {
    const world = newWorld("upnp");
    spoil(world.gateway);
    const mapping = await world.map({ protocols: ["upnp"] });
    deepStrictEqual(mapping.external, { ip: world.gateway.externalIp, port: PORT });
    await end(world, mapping);
  });
}

Deno.test("UPnP: version 2 is asked for any port, PPP like version 1", async () => {
  const cases: [string, string][] = [
    ["WANIPConnection:2", "upnp AddAnyPortMapping"],
    ["WANIPConnection:1", "upnp AddPortMapping"],
    ["WANPPPConnection:1", "upnp AddPortMapping"],
  ];
  for (const [type, line] of cases) {
    const world = newWorld("upnp");
    world.gateway.serviceType = `urn:schemas-upnp-org:service:${type}`;
    const mapping = await world.map();
    strictEqual(count(world, line), 1, type);
    await end(world, mapping);
  }
});

const FAULTS: [string, FakeGateway["fault"], (values: Endpoint) => boolean][] = [
  [
    "permanent leases only (725)",
    (action, values) =>
      action === "AddPortMapping" && values.get("NewLeaseDuration") !== "0" ? 725 : undefined,
    ({ port }) => port === PORT,
  ],
  [
    "no leases known (402)",
    (action, values) =>
      action === "AddPortMapping" && values.get("NewLeaseDuration") !== "0" ? 402 : undefined,
    ({ port }) => port === PORT,
  ],
  [
    "the port is another host's (718)",
    (action, values) =>
      action === "AddPortMapping" && values.get("NewExternalPort") === String(PORT)
        ? 718
        : undefined,
    ({ port }) => port !== PORT && port >= 1024,
  ],
];

for (const [name, fault, isFine] of FAULTS) {
  Deno.test(`UPnP: ${name}`, async () => {
    const world = newWorld("upnp");
    world.gateway.fault = fault;
    const mapping = await world.map({ checkMs: 10 * MINUTE_MS });
    ok(isFine(mapping.external!), formatEndpoint(mapping.external!));
    await world.pass(3 * HOUR_MS);
    deepStrictEqual(world.gateway.ports, [mapping.external!.port]);
    deepStrictEqual(world.changes, []);
    await end(world, mapping);
    deepStrictEqual(world.gateway.ports, []);
  });
}

Deno.test("UPnP: a gateway that calls renewing a conflict keeps the port", async () => {
  const world = newWorld("upnp");
  world.gateway.fault = (action, values) =>
    action === "AddPortMapping" &&
      world.gateway.mappings.has(Number(values.get("NewExternalPort")))
      ? 718
      : undefined;
  const mapping = await world.map({ checkMs: 10 * MINUTE_MS });
  await world.pass(3 * HOUR_MS);
  deepStrictEqual(world.gateway.ports, [PORT]);
  deepStrictEqual(world.changes, []);
  await end(world, mapping);
});

Deno.test("UPnP: the same port inside and outside (724)", async () => {
  const world = newWorld("upnp");
  world.gateway.fault = (action, values) =>
    action === "AddPortMapping" && values.get("NewExternalPort") !== String(PORT) ? 724 : undefined;
  const mapping = await world.map({ externalPort: 40_000 });
  strictEqual(mapping.external!.port, PORT);
  await end(world, mapping);
});

Deno.test("UPnP: a mapping that is another host's now is lost", async () => {
  const world = newWorld("upnp");
  const mapping = await world.map();
  world.gateway.mappings.get(PORT)!.internalPort = 1;
  await world.pass(2 * MINUTE_MS);
  strictEqual(count(world, "upnp AddPortMapping"), 2);
  await end(world, mapping);
});

/** More than any description. */
const ENDLESS = (): WireAnswer => ({
  pieces: ["HTTP/1.1 200 OK\r\n\r\n", ...new Array(10).fill(" ".repeat(16_384))],
});

const BAD_DEVICES: [string, (gateway: FakeGateway) => void, RegExp][] = [
  ["a description by HTTPS", (g) => g.location = `https://${GATEWAY}/d`, /no URL of HTTP/],
  ["a description with a password", (g) => g.location = `http://a:b@${GATEWAY}/d`, /no URL of/],
  ["actions by another protocol", (g) => g.controlUrl = "ftp://192.168.1.1/c", /no URL of HTTP/],
  ["a page without end", (g) => g.wire = ENDLESS, /more than 131072 bytes/],
  ["a page that is none", (g) => g.page = () => page("<p>"), /not a description/],
  ["a redirection in circles", (g) => {
    g.page = () => ({ status: 302, text: "", headers: ["location: /desc.xml"] });
  }, /HTTP status 302/],
  ["no such page", (g) => g.page = () => ({ status: 404, text: "" }), /HTTP status 404/],
  ["no service", (g) => g.serviceType = "urn:other", /no service for port mappings/],
  ["no control page", (g) => g.controlUrl = "/other", /not an answer to GetExternalIPAddress/],
  ["no address", (g) => g.externalIp = parseIp("0.0.0.0"), /has no external address/],
  ["a port that is none", (g) => {
    g.serviceType = "urn:schemas-upnp-org:service:WANIPConnection:2";
    g.fault = (action) => action === "AddAnyPortMapping" ? 501 : undefined;
  }, /AddAnyPortMapping: error 501/],
];

for (const [name, spoil, why] of BAD_DEVICES) {
  Deno.test(`UPnP refuses ${name}`, async () => {
    const world = newWorld("upnp");
    spoil(world.gateway);
    await rejects(world.map({ protocols: ["upnp"] }), (error: unknown) => {
      ok(error instanceof NoPortMappingError);
      match(error.reasons.upnp!, why);
      return true;
    });
    strictEqual(world.gateway.openSockets, 0);
  });
}

Deno.test("UPnP: a gateway that takes its time over HTTP is given up within 3 s", async () => {
  const world = newWorld("upnp");
  world.gateway.delayMs.upnp = 1200;
  await rejects(world.map({ protocols: ["upnp"] }), /UPnP: no answer within 2500 ms/);
  ok(world.clock.nowMs() <= 3000);
});

// --- probing

Deno.test("probePortMapping() says who answers, and makes nothing", async () => {
  const { clock, gateway } = newWorld("natpmp", "upnp");
  gateway.externalIp = parseIp("0.0.0.0");
  const probe = () => probePortMapping({ gateway: GATEWAY, local: LOCAL, net: gateway, clock });
  deepStrictEqual(await clock.until(probe()), {
    pcp: { answers: false, why: "unsupported version" },
    natpmp: { answers: true, externalIp: "0.0.0.0" },
    upnp: { answers: false, why: "the gateway has no external address" },
  });
  gateway.externalIp = parseIp("198.51.100.7");
  gateway.speaks = new Set(["pcp", "upnp"]);
  const startMs = clock.nowMs();
  deepStrictEqual(await clock.until(probe()), {
    pcp: { answers: true, externalIp: undefined },
    natpmp: { answers: false, why: "no answer" },
    upnp: { answers: true, externalIp: "198.51.100.7" },
  });
  ok(clock.nowMs() - startMs <= 2500);
  deepStrictEqual(gateway.ports, []);
  strictEqual(gateway.openSockets, 0);
  const signal = AbortSignal.abort(new Error("stopped"));
  await rejects(
    probePortMapping({ gateway: GATEWAY, local: LOCAL, net: gateway, clock, signal }),
    /stopped/,
  );
});
