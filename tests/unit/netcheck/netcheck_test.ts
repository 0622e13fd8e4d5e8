/** The verdicts of `gretun netcheck`, and the command on loopback. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { errorLine, exitCode } from "../../../lib/cli/command.ts";
import { command } from "../../../lib/cli/gretun/netcheck.ts";
import { GretunError } from "../../../lib/errors.ts";
import {
  type FamilyReport,
  hasWayOut,
  isDoubleNat,
  meaningOf,
  type NetReport,
  type PortMapReport,
  type Reach,
  reachOf,
} from "../../../lib/netcheck/mod.ts";
import { RtNetlink } from "../../../lib/netlink.ts";
import {
  type FilteringBehaviour,
  type MappingBehaviour,
  StunService,
} from "../../../lib/stun/mod.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

// --- verdicts

const EI = "endpoint-independent";
const AD = "address-dependent";
const APD = "address-and-port-dependent";

function family(
  mapping: MappingBehaviour,
  filtering: FilteringBehaviour,
  mapped = "198.51.100.1:5000",
): FamilyReport {
  const isTranslated = true;
  return { mapped: parseEndpoint(mapped), localPort: 5000, isTranslated, mapping, filtering };
}

/** A router whose NAT-PMP tells that address; undefined: that has PCP alone. */
function router(external: string | undefined): PortMapReport {
  const silent = { answers: false, why: "no answer" } as const;
  const pcp = { answers: true, externalIp: undefined } as const;
  const natpmp = external ? { answers: true, externalIp: parseIp(external) } as const : silent;
  return { gateway: parseIp("192.168.1.1"), protocols: { pcp, natpmp, upnp: silent } };
}

const REACHES: [MappingBehaviour, FilteringBehaviour, Reach][] = [
  [EI, EI, "open"],
  [EI, AD, "restricted"],
  [EI, `${EI} or ${AD}`, "restricted"],
  [EI, APD, "port-restricted"],
  [EI, `${AD} or ${APD}`, "port-restricted"],
  [EI, "unknown", "port-restricted"],
  [`${EI} or ${AD}`, EI, "open"],
  [`${EI} or ${AD}`, APD, "port-restricted"],
  [AD, EI, "symmetric"],
  [`${AD} or ${APD}`, EI, "symmetric"],
  [APD, APD, "symmetric"],
  ["unknown", EI, "unknown"],
];
for (const [mapping, filtering, expected] of REACHES) {
  Deno.test(`reachOf(): mapping ${mapping}, filtering ${filtering}`, () => {
    const report: NetReport = { servers: [], ipv4: family(mapping, filtering) };
    strictEqual(reachOf(report), expected);
    ok(hasWayOut(report));
    match(meaningOf(report), /^[A-Z].*\.$/);
  });
}

const REPORTS: [name: string, report: Omit<NetReport, "servers">, reach: Reach, meaning: RegExp][] =
  [
    ["nothing", {}, "nothing", /^No STUN server answers: .*--coordinator/],
    [
      "no coordinator either",
      { coordinator: { url: "http://c", error: "no answer" } },
      "nothing",
      /^Nothing gets out: neither a STUN server nor the coordinator answers\.$/,
    ],
    [
      "the coordinator alone",
      { coordinator: { url: "http://c", rttMs: 3 } },
      "tcp-only",
      /^No STUN server answers, UDP seems to be blocked: a relay over TCP/,
    ],
    [
      "a port mapping behind a symmetric NAT",
      { ipv4: family(APD, APD), portMap: router("198.51.100.1") },
      "mapped",
      /^Direct with all peers, by a port mapping/,
    ],
    [
      "a port mapping that leads nowhere",
      { ipv4: family(EI, APD), portMap: router("100.64.0.9") },
      "port-restricted",
      /^Direct with all peers but those behind symmetric NATs/,
    ],
    [
      "a port mapping of a router that does not tell its address",
      { ipv4: family(APD, APD), portMap: router(undefined) },
      "symmetric",
      /^Symmetric NAT/,
    ],
    [
      "an open host needs no port mapping",
      { ipv4: family(EI, EI), portMap: router("198.51.100.1") },
      "open",
      /everybody reaches this host\.$/,
    ],
    [
      "IPv6 besides a symmetric NAT",
      { ipv4: family(APD, APD), ipv6: family(EI, APD, "[2001:db8::1]:5000") },
      "symmetric",
      /^Symmetric NAT.* Over IPv6, direct with peers that have it too\.$/,
    ],
    [
      "IPv6 besides an open host",
      { ipv4: family(EI, EI), ipv6: family(EI, APD, "[2001:db8::1]:5000") },
      "open",
      /everybody reaches this host\.$/,
    ],
    [
      "IPv6 alone",
      { ipv6: family(EI, APD, "[2001:db8::1]:5000") },
      "port-restricted",
      /^Direct with all peers but those behind symmetric NATs: [^.]*\.$/,
    ],
  ];
for (const [name, report, reach, meaning] of REPORTS) {
  Deno.test(`meaningOf(): ${name}`, () => {
    const whole: NetReport = { servers: [], ...report };
    strictEqual(reachOf(whole), reach);
    strictEqual(hasWayOut(whole), reach !== "nothing");
    match(meaningOf(whole), meaning);
  });
}

Deno.test("isDoubleNat() compares the router's address with the one that servers see", () => {
  const ipv4 = family(EI, APD);
  const cases: [string | undefined, FamilyReport | undefined, boolean | undefined][] = [
    ["198.51.100.1", ipv4, false],
    ["198.51.100.2", ipv4, true],
    ["192.168.0.2", ipv4, true],
    ["100.64.0.2", undefined, true],
    ["198.51.100.1", undefined, undefined],
    [undefined, ipv4, undefined],
  ];
  for (const [external, seen, expected] of cases) {
    const report = { portMap: router(external), ...(seen ? { ipv4: seen } : {}) };
    strictEqual(isDoubleNat(report), expected, external);
  }
  strictEqual(isDoubleNat({ ipv4 }), undefined);
});

// --- the command

async function run(args: string[], signal = new AbortController().signal) {
  let text = "";
  const stdout = (t: string) => void (text += t);
  const code = await command.run(args, { stdout, stderr: () => {}, signal });
  return { code, text };
}

/** A UDP port that nobody answers on. */
function silentPort(hostname = "127.0.0.1"): Disposable & { port: number } {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  return { port, [Symbol.dispose]: () => socket.close() };
}

/** A STUN server at two ports and addresses of loopback. */
async function withServer(body: (servers: string) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const service = new StunService({ signal: stop.signal });
  const first = service.listen({ hostname: "127.0.0.1", port: 0 });
  const { port: second } = service.listen({ hostname: "127.0.0.1", port: 0 });
  for (const port of [first.port, second]) service.listen({ hostname: "127.0.0.2", port });
  try {
    await body(`127.0.0.1:${first.port}`);
  } finally {
    stop.abort();
    // The server's loops end with their sockets, in a later turn.
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

Deno.test("gretun netcheck prints a table, a sentence, and with --json all of it", () =>
  withServer(async (server) => {
    const { code, text } = await run(["--stun-server", server]);
    strictEqual(code, 0);
    match(text, /^UDP +works$/m);
    match(text, /^IPv4 +127\.0\.0\.1:\d+, not translated$/m);
    match(text, /^IPv4 filtering +endpoint-independent$/m);
    match(text, /^IPv6 +none$/m);
    match(text, /^STUN SERVER +ADDRESS +LATENCY$/m);
    match(text, new RegExp(`^${server} +${server} +[\\d.]+ ms$`, "m"));
    match(text, /\nDirect with all peers: everybody reaches this host\.\n$/);
    const json = JSON.parse((await run(["--stun-server", server, "--json"])).text);
    deepStrictEqual(Object.keys(json.ipv4), [
      "addr",
      "local_port",
      "nat",
      "mapping",
      "filtering",
      "narrow_path",
    ]);
    strictEqual(json.ipv4.nat, false);
    strictEqual(json.ipv6, null);
    strictEqual(json.coordinator, null);
    strictEqual(json.stun_servers.length, 1);
  }));

/** What a coordinator's STUN servers are told with. */
async function withCoordinator(
  answer: () => Response,
  body: (url: string) => Promise<void>,
): Promise<void> {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, answer);
  try {
    await body(`http://127.0.0.1:${server.addr.port}`);
  } finally {
    await server.shutdown();
  }
}

Deno.test("gretun netcheck tells why a coordinator is of no use, and asks at its host all the same", () =>
  withCoordinator(() => new Response("no", { status: 500 }), async (url) => {
    const { code, text } = await run([url, "--json", "--timeout", "500ms"]);
    strictEqual(code, 1);
    const { coordinator, stun_servers } = JSON.parse(text);
    strictEqual(coordinator.reachable, false);
    match(coordinator.error, /refused: 500 no\. Look into the coordinator's log/);
    strictEqual(stun_servers[0].name, "127.0.0.1:3478");
  }));

Deno.test("gretun netcheck ends with 1 when nothing answers, in the time it has", async () => {
  using silent = silentPort();
  const server = `127.0.0.1:${silent.port}`;
  const servers = ["--stun-server", `${server},nosuch.invalid`];
  const { code, text } = await run([...servers, "--timeout", "300ms"]);
  strictEqual(code, 1);
  match(text, /^UDP +blocked: no STUN server answers$/m);
  match(text, /^nosuch\.invalid +- +does not resolve$/m);
  const { text: unresolved } = await run(["--stun-server", "nosuch.invalid", "--timeout", "300ms"]);
  match(unresolved, /^UDP +not tried: no STUN server's name resolves$/m);
});

Deno.test("gretun netcheck says on one line what is wrong with a call", async () => {
  using taken = silentPort("0.0.0.0");
  const cases: [name: string, args: string[], code: number, line: RegExp][] = [
    ["no URL", ["--coordinator", "example.com"], 2, /--coordinator "example\.com".*http:\/\//],
    ["an empty URL", ["--coordinator="], 2, /--coordinator has no value/],
    ["a server that is no name", ["--stun-server", "a:b"], 2, /"a:b".*HOST:PORT/],
    ["one bad server of two", ["--stun-server", "127.0.0.1,x:0"], 2, /"x:0"/],
    ["a bad port", ["--port", "0"], 2, /--port 0.*65535/],
    ["a bad duration", ["--timeout", "0s"], 2, /--timeout "0s".*too short/],
    ["an unknown flag", ["--server", "a"], 2, /--server/],
    ["an extra word", ["stun.example"], 2, /"stun\.example"/],
    [
      "a port that is taken",
      ["--stun-server", "127.0.0.1", "--port", `${taken.port}`, "--timeout", "200ms"],
      1,
      /cannot open UDP port.*--port/,
    ],
  ];
  for (const [name, args, code, line] of cases) {
    await rejects(run(args), (error) => {
      ok(error instanceof GretunError, name);
      strictEqual(exitCode(error), code, name);
      const text = errorLine(error);
      deepStrictEqual(text.split("\n"), [text]);
      match(text, line);
      return true;
    });
  }
});

Deno.test("gretun netcheck stops when it is interrupted", async () => {
  using silent = silentPort();
  const controller = new AbortController();
  const done = run(["--stun-server", `127.0.0.1:${silent.port}`], controller.signal);
  setTimeout(() => controller.abort(new Error("SIGINT")), 20);
  await rejects(done, /interrupted/);
});
