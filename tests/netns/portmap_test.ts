/**
 * Port mappings of a real gateway, miniupnpd of Debian, which speaks all three protocols: in the
 * namespace of a NAT of the lab, with chains of its own beside the NAT's.
 *
 *     alice --- home (NAT and miniupnpd) --- server
 *
 * With MINIUPNPD_LOG set, what the gateway says is shown.
 */
import { deepStrictEqual, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type Endpoint, formatEndpoint, parseEndpoint, parseIp } from "../../lib/addr.ts";
import { type Host, Lab, type LabNode } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { findGateway, type PortMapProtocol, PROTOCOLS } from "../../lib/portmap/mod.ts";
import { DENO_RUN } from "../deno_run.ts";
import { isMiniupnpdThere, makeHome, Miniupnpd, PUBLIC_IP } from "../miniupnpd.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const PREFIX = `gretun-pm-${Deno.pid}-`;
const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const ALL = PROTOCOLS.join();
const INTERNAL_PORT = 7777;
/** Far more than a loaded machine takes for what is to come. */
const PATIENCE_MS = 60_000;
/** For what is not to come. */
const SILENCE_MS = 300;

const test = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name, ignore: !isMiniupnpdThere, fn });

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

// deno-lint-ignore no-explicit-any
type Event = Record<string, any>;

/** tests/fakes/portmap_process.ts on a host. */
class Node implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #events: Event[] = [];
  readonly #read: Promise<void>;

  constructor(host: Host, ...args: string[]) {
    const program = `${ROOT}tests/fakes/portmap_process.ts`;
    const run = [...DENO_RUN, program];
    const env = { NO_COLOR: "1" };
    const pipes = { stdin: "piped", stdout: "piped", stderr: "inherit" } as const;
    this.#child = host.spawn(Deno.execPath(), [...run, ...args], { env, ...pipes });
    this.#read = this.#readEvents();
  }

  /** Lets it delete its mapping. */
  async end(): Promise<void> {
    await this.#child.stdin.close();
    deepStrictEqual(await this.next(), { event: "ended" });
  }

  /** Lets it do nothing any more. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** The next event. */
  async next(patienceMs = PATIENCE_MS): Promise<Event> {
    for (let waitedMs = 0; waitedMs < patienceMs; waitedMs += 10) {
      const event = this.#events.shift();
      if (event) return event;
      await sleep(10);
    }
    throw new Error("no event in time");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stdin.close().catch(() => {});
    await this.#child.status;
    await this.#read;
  }

  async #readEvents(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.#events.push(...lines.map((line) => JSON.parse(line)));
    }
  }
}

/** Of all datagrams. */
let sent = 0;

class Udp implements Disposable {
  readonly #socket: Deno.DatagramConn;
  readonly #received: string[] = [];

  constructor(node: LabNode, port: number) {
    const options = { transport: "udp", hostname: "0.0.0.0", port } as const;
    this.#socket = node.within(() => Deno.listenDatagram(options));
    this.#pump();
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  /** Whether a datagram to `there` comes out at `other`. */
  async reaches(
    other: Udp,
    { ip: hostname, port }: Endpoint,
    expected = true,
  ): Promise<boolean> {
    const text = `datagram ${sent++}`;
    const bytes = new TextEncoder().encode(text);
    await this.#socket.send(bytes, { transport: "udp", hostname, port });
    const patienceMs = expected ? PATIENCE_MS : SILENCE_MS;
    for (let waitedMs = 0; waitedMs < patienceMs; waitedMs += 10) {
      if (other.#received.includes(text)) return true;
      await sleep(10);
    }
    return false;
  }

  async #pump(): Promise<void> {
    for await (const [bytes] of this.#socket) this.#received.push(new TextDecoder().decode(bytes));
  }
}

for (const protocol of PROTOCOLS) {
  test(`${protocol}: a mapping is made, used, renewed and deleted`, async () => {
    await using lab = Lab.create({ prefix: PREFIX });
    const { nat, alice, server } = makeHome(lab);
    await using _gateway = await Miniupnpd.start(nat);
    using inner = new Udp(alice, INTERNAL_PORT);
    // Each time from another port: a flow that is known lives on without the mapping.
    using before = new Udp(server, 6000);
    using first = new Udp(server, 6001);
    using second = new Udp(server, 6002);
    using after = new Udp(server, 6003);
    const there = { ip: PUBLIC_IP, port: INTERNAL_PORT };
    ok(!await before.reaches(inner, there, false), "reached without a mapping");

    await using node = new Node(alice, protocol, String(INTERNAL_PORT), "6");
    let event = await node.next();
    // Where the machine is busy, the gateway answers late, and is asked again.
    while (event.event === "none") event = await node.next();
    deepStrictEqual(event, {
      event: "mapped",
      protocol,
      external: formatEndpoint(there),
      isPublic: true,
      lifetimeSeconds: 6,
    });
    ok(await first.reaches(inner, there), "not reached through the mapping");
    await sleep(10_000); // renewed each 4 s: the end is not to fall together with that
    ok(await second.reaches(inner, there), "not reached after the first lifetime");

    await node.end();
    ok(!await after.reaches(inner, there, false), "reached after the mapping was deleted");
  });
}

test("a host that dies: its mapping ends with the lifetime", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const { nat, alice, server } = makeHome(lab);
  await using _gateway = await Miniupnpd.start(nat);
  using inner = new Udp(alice, INTERNAL_PORT);
  using first = new Udp(server, 6000);
  await using node = new Node(alice, "pcp", String(INTERNAL_PORT), "6");
  const there = parseEndpoint((await node.next()).external);
  node.kill();
  ok(await first.reaches(inner, there), "gone too early");
  await sleep(8000);
  for (let port = 6001;; port++) {
    using outer = new Udp(server, port);
    if (!await outer.reaches(inner, there, false)) break;
    ok(port < 6100, "still there");
  }
});

test("two hosts that want the same port: the second gets another one", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const { nat, alice, server } = makeHome(lab);
  const bob = lab.host("bob", { behind: nat });
  await using _gateway = await Miniupnpd.start(nat);
  await using _taken = new Node(alice, "pcp", String(INTERNAL_PORT), "600");
  strictEqual((await _taken.next()).external, `${PUBLIC_IP}:${INTERNAL_PORT}`);
  using inner = new Udp(bob, INTERNAL_PORT);
  using outer = new Udp(server, 6000);
  for (const protocol of PROTOCOLS) {
    await using node = new Node(bob, protocol, String(INTERNAL_PORT), "600");
    const { external } = await node.next();
    const there = parseEndpoint(external);
    strictEqual(there.ip, PUBLIC_IP);
    notStrictEqual(there.port, INTERNAL_PORT, protocol);
    ok(await outer.reaches(inner, there), protocol);
    await node.end();
  }
});

test("all protocols together: PCP is taken, and a probe finds all three", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const { nat, alice } = makeHome(lab);
  await using _gateway = await Miniupnpd.start(nat);
  await using prober = new Node(alice, "probe");
  deepStrictEqual(await prober.next(), {
    event: "probed",
    gateway: "10.0.1.1",
    local: alice.ip,
    pcp: { answers: true },
    natpmp: { answers: true, externalIp: PUBLIC_IP },
    upnp: { answers: true, externalIp: PUBLIC_IP },
  });
  await using node = new Node(alice, ALL, String(INTERNAL_PORT), "600");
  strictEqual((await node.next()).protocol, "pcp");
});

test("without NAT-PMP and PCP, UPnP is taken", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const { nat, alice } = makeHome(lab);
  await using _gateway = await Miniupnpd.start(nat, [`ext_ip=${PUBLIC_IP}`]);
  await using node = new Node(alice, ALL, String(INTERNAL_PORT), "600");
  strictEqual((await node.next()).protocol, "upnp");
});

test("a gateway that is itself behind a NAT refuses, and says why", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const { nat, alice } = makeHome(lab);
  await using _gateway = await Miniupnpd.start(nat, ["enable_natpmp=yes"]); // the lab's address
  const asked = async (): Promise<Event> => {
    await using node = new Node(alice, ALL, String(INTERNAL_PORT), "600");
    return await node.next();
  };
  let { event, reasons } = await asked();
  // On a busy machine the gateway may answer later than anybody waits.
  for (let tries = 1; reasons?.upnp === "no answer" && tries < 5; tries++) {
    ({ event, reasons } = await asked());
  }
  strictEqual(event, "none");
  deepStrictEqual(reasons, {
    pcp: "out of resources",
    natpmp: "network failure: the gateway has no usable address itself",
    upnp: "the gateway has no external address",
  });
});

test("findGateway() finds the router of the default route, if there is one", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const nat = lab.nat("home");
  const alice = lab.host("alice", { behind: nat });
  const cases: [string, LabNode, ReturnType<typeof findGateway>][] = [
    ["behind a NAT", alice, { gateway: parseIp("10.0.1.1"), local: alice.ip }],
    ["the NAT itself", nat, { gateway: parseIp("203.0.113.1"), local: nat.ip }],
    ["a point-to-point link", lab.publicHost("far", { delayMs: 1 }), undefined],
    ["no default route", lab.internet, undefined],
  ];
  for (const [name, node, expected] of cases) {
    using rtnl = node.within(() => RtNetlink.open());
    deepStrictEqual(findGateway(rtnl), expected, name);
  }
});

test("no server in the gateway: given up", async () => {
  await using lab = Lab.create({ prefix: PREFIX });
  const { alice } = makeHome(lab);
  await using node = new Node(alice, ALL, String(INTERNAL_PORT), "600");
  const { elapsedMs, ...rest } = await node.next();
  deepStrictEqual(rest, {
    event: "none",
    reasons: { pcp: "no answer", natpmp: "no answer", upnp: "no answer" },
  });
  console.log(`given up after ${Math.round(elapsedMs)} ms`);
});

/** How the host hears of it, and how often it asks. */
const RESTARTS: [string, PortMapProtocol, string[]][] = [
  ["by its announcement", "pcp", []],
  ["by its announcement", "natpmp", []],
  ["by being asked", "pcp", ["1000"]],
  ["by being asked", "natpmp", ["1000"]],
  ["by being asked", "upnp", ["1000"]],
];

for (const [how, protocol, checkMs] of RESTARTS) {
  test(`${protocol}: a gateway that was started again is noticed ${how}`, async () => {
    await using lab = Lab.create({ prefix: PREFIX });
    const { nat, alice, server } = makeHome(lab);
    using inner = new Udp(alice, INTERNAL_PORT);
    const before = await Miniupnpd.start(nat);
    await using node = new Node(alice, protocol, String(INTERNAL_PORT), "600", ...checkMs);
    const there = parseEndpoint((await node.next()).external);
    await sleep(4000); // a gateway's clock counts in seconds
    await before[Symbol.asyncDispose]();
    await using _after = await Miniupnpd.start(nat);
    const restartedMs = Date.now();
    let port = 6000;
    while (true) {
      using outer = new Udp(server, port++);
      if (await outer.reaches(inner, there, false)) break;
      ok(Date.now() - restartedMs < PATIENCE_MS, "not mapped again");
    }
  });
}
