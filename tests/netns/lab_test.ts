/** The lab on the real kernel: who reaches whom, through what, and that nothing stays behind. */
import { deepStrictEqual, match, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { type Endpoint, parseCidr, parseIp } from "../../lib/addr.ts";
import { GretunError } from "../../lib/errors.ts";
import { type Host, Lab, type LabNode, NAT_MAPPINGS, type NatMapping } from "../../lib/lab/mod.ts";
import { createNamedNetns, RtNetlink } from "../../lib/netlink.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

const PREFIX = `gretun-test-${Deno.pid}-`;
const newLab = () => Lab.create({ prefix: PREFIX });

/** The shortest round trip in ms: a busy machine makes others longer. Undefined: no answer. */
async function ping(from: LabNode, to: string): Promise<number | undefined> {
  const { stdout } = await from.run("ping", ["-c", "4", "-i", "0.1", "-W", "1", to]);
  const least = /^rtt min\/avg\/max\/mdev = ([\d.]+)\//m.exec(stdout)?.[1];
  return least === undefined ? undefined : Number(least);
}

class Udp implements Disposable {
  readonly #socket: Deno.DatagramConn;
  readonly #received: { text: string; from: Endpoint }[] = [];

  constructor(node: LabNode, port: number) {
    this.#socket = node.within(() =>
      Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port })
    );
    this.#pump();
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  send(text: string, { ip, port }: Endpoint): void {
    const bytes = new TextEncoder().encode(text);
    // A datagram that cannot be sent is lost, like any other on the way.
    this.#socket.send(bytes, { transport: "udp", hostname: ip, port }).catch(() => {});
  }

  /** From where a datagram of this text came; undefined when none did for a while. */
  async sender(text: string): Promise<Endpoint | undefined> {
    for (let i = 0; i < 30; i++) {
      const found = this.#received.find((datagram) => datagram.text === text);
      if (found) return found.from;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async #pump(): Promise<void> {
    try {
      for await (const [bytes, from] of this.#socket) {
        const { hostname, port } = from as Deno.NetAddr;
        const text = new TextDecoder().decode(bytes);
        this.#received.push({ text, from: { ip: parseIp(hostname), port } });
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
    }
  }
}

const at = (node: { ip: Host["ip"] }, port: number): Endpoint => ({ ip: node.ip, port });

Deno.test("Lab: hosts reach what they should, and no more", async () => {
  await using lab = newLab();
  const server = lab.publicHost("server");
  const other = lab.publicHost("other");
  const home = lab.nat("home");
  const office = lab.nat("office", { prefix: parseCidr("192.168.7.0/24") });
  const flat = lab.nat("flat", { behind: office, mapping: "symmetric" });
  const alice = lab.host("alice", { behind: home });
  const anna = lab.host("anna", { behind: home });
  const bob = lab.host("bob", { behind: office });
  const carol = lab.host("carol", { behind: flat });
  deepStrictEqual(
    [server, other, home, office, flat, alice, anna, bob, carol].map(({ ip }) => ip),
    [
      "203.0.113.2",
      "203.0.113.3",
      "203.0.113.4",
      "203.0.113.5",
      "192.168.7.2",
      "10.0.1.2",
      "10.0.1.3",
      "192.168.7.3",
      "10.0.2.2",
    ],
  );
  const cases: [string, LabNode, string, boolean][] = [
    ["public to public", server, other.ip, true],
    ["itself", server, "127.0.0.1", true],
    ["out through a NAT", alice, server.ip, true],
    ["out through two NATs", carol, server.ip, true],
    ["next to it behind the same NAT", alice, anna.ip, true],
    ["the NAT itself from inside", alice, "10.0.1.1", true],
    ["the NAT itself from outside", server, home.ip, false],
    ["the NAT to a server", home, server.ip, true],
    ["in through a NAT", server, alice.ip, false],
    ["behind another NAT", alice, bob.ip, false],
  ];
  await Promise.all(cases.map(async ([name, from, to, reached]) => {
    strictEqual(await ping(from, to) !== undefined, reached, name);
  }));
});

Deno.test("Lab: a delayed host is far away for everybody", async () => {
  await using lab = newLab();
  const coord = lab.publicHost("coord", { delayMs: 10 });
  const far = lab.publicHost("far", { delayMs: 5 });
  const server = lab.publicHost("server");
  const alice = lab.host("alice", { behind: lab.nat("home") });
  strictEqual(coord.ip, "198.51.100.1");
  const cases: [string, LabNode, string, number][] = [
    ["from a public host", server, coord.ip, 20],
    ["to a public host", coord, server.ip, 20],
    ["from behind a NAT", alice, coord.ip, 20],
    ["between two delayed hosts", far, coord.ip, 30],
  ];
  for (const [name, from, to, leastMs] of cases) {
    const rttMs = await ping(from, to);
    ok(rttMs !== undefined && rttMs >= leastMs && rttMs < leastMs + 10, `${name}: ${rttMs} ms`);
  }
  ok((await ping(server, alice.ip)) === undefined);
});

/** What RFC 4787 calls mapping and filtering, as a host's peers see them. */
const BEHAVIOUR: Record<NatMapping, { samePort: boolean; fromAnyPort: boolean }> = {
  "port-restricted": { samePort: true, fromAnyPort: false },
  symmetric: { samePort: false, fromAnyPort: false },
  "full-cone": { samePort: true, fromAnyPort: true },
};

for (const mapping of NAT_MAPPINGS) {
  Deno.test(`Lab: a ${mapping} NAT`, async () => {
    await using lab = newLab();
    const [one, two] = [lab.publicHost("one"), lab.publicHost("two")];
    const nat = lab.nat("nat", { mapping });
    const host = lab.host("host", { behind: nat });
    using a = new Udp(host, 5000);
    using b1 = new Udp(one, 6000);
    using b2 = new Udp(two, 6000);
    using b3 = new Udp(two, 6001);

    // A peer that was not sent anything yet must not move the mapping by trying.
    b2.send("too early", at(nat, 5000));
    strictEqual(await a.sender("too early") !== undefined, BEHAVIOUR[mapping].fromAnyPort);

    a.send("to one", at(one, 6000));
    a.send("to two", at(two, 6000));
    const [seen1, seen2] = [(await b1.sender("to one"))!, (await b2.sender("to two"))!];
    deepStrictEqual([seen1.ip, seen2.ip], [nat.ip, nat.ip]);
    strictEqual(seen1.port === seen2.port, BEHAVIOUR[mapping].samePort);
    if (BEHAVIOUR[mapping].samePort) strictEqual(seen1.port, 5000);

    b1.send("answer", seen1);
    b3.send("from another port", seen2);
    deepStrictEqual(await a.sender("answer"), at(one, 6000));
    strictEqual(
      await a.sender("from another port") !== undefined,
      BEHAVIOUR[mapping].fromAnyPort,
    );
  });
}

Deno.test("Lab: a NAT that blocks UDP lets the rest through", async () => {
  await using lab = newLab();
  const server = lab.publicHost("server");
  const host = lab.host("host", { behind: lab.nat("nat", { blockUdp: true }) });
  using a = new Udp(host, 5000);
  using b = new Udp(server, 6000);
  a.send("hello", at(server, 6000));
  strictEqual(await b.sender("hello"), undefined);
  ok(await ping(host, server.ip) !== undefined);
});

Deno.test("LabNode runs programs", async () => {
  await using lab = newLab();
  const host = lab.publicHost("host");
  deepStrictEqual(
    await host.run("sh", ["-c", "echo $NAME; echo bad >&2; exit 3"], { env: { NAME: "x" } }),
    { code: 3, stdout: "x\n", stderr: "bad\n" },
  );
  await rejects(host.run("gretun-no-such-program", []), (error) => {
    ok(error instanceof GretunError);
    match(error.message, /cannot start gretun-no-such-program on host: there is no such program/);
    return true;
  });
  const child = host.spawn("sleep", ["100"], { signal: AbortSignal.timeout(50) });
  strictEqual((await child.status).signal, "SIGTERM");
});

Deno.test("Lab refuses what cannot be", async () => {
  await using lab = newLab();
  const nat = lab.nat("nat", { mapping: "full-cone" });
  lab.host("host", { behind: nat });
  const cases: [string, () => unknown, RegExp][] = [
    ["name taken", () => lab.publicHost("host"), /there is a host host already/],
    ["name too long", () => lab.publicHost("a-very-long-name"), /cannot name a host "a-very/],
    ["name of an interface", () => lab.publicHost("out"), /cannot name a host "out"/],
    ["not a name", () => lab.publicHost("../x"), /cannot name a host/],
    ["full cone shared", () => lab.host("second", { behind: nat }), /leads to one host/],
    ["prefix in use", () => newLab(), /exist already: gretun-test-\d+-host, /],
  ];
  for (const [name, call, message] of cases) {
    throws(call, (error) => error instanceof GretunError && message.test(error.message), name);
  }
});

const isAlive = (pid: number) => {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1]![0] !== "Z";
  } catch {
    return false;
  }
};

Deno.test("Lab leaves nothing behind, and may be disposed twice", async () => {
  using rtnl = RtNetlink.open();
  const linksBefore = rtnl.links().map(({ name }) => name);
  const lab = newLab();
  const home = lab.nat("home");
  const alice = lab.host("alice", { behind: home });
  lab.publicHost("coord", { delayMs: 10 });
  const script = "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000";
  const child = alice.spawn("bash", ["-c", script], { stdout: "piped" });
  const reader = child.stdout.getReader();
  const grandchild = Number(new TextDecoder().decode((await reader.read()).value));
  ok(isAlive(child.pid) && isAlive(grandchild));
  const startMs = performance.now();
  await lab[Symbol.asyncDispose]();
  ok(performance.now() - startMs < 4000);
  await reader.cancel();
  deepStrictEqual([isAlive(child.pid), isAlive(grandchild)], [false, false]);
  deepStrictEqual(Lab.leftovers(PREFIX), []);
  deepStrictEqual(rtnl.links().map(({ name }) => name), linksBefore);
  await lab[Symbol.asyncDispose]();
});

Deno.test("Lab goes away when building it fails half way", async () => {
  await rejects(async () => {
    await using lab = newLab();
    lab.publicHost("one");
    lab.publicHost("one");
  }, GretunError);
  deepStrictEqual(Lab.leftovers(PREFIX), []);
});

Deno.test("Lab.removeLeftovers cleans up after a killed run", async () => {
  const program = `
    import { Lab } from ${JSON.stringify(import.meta.resolve("../../lib/lab/mod.ts"))};
    const lab = Lab.create({ prefix: ${JSON.stringify(PREFIX)} });
    const host = lab.host("host", { behind: lab.nat("nat") });
    console.log(host.spawn("sleep", ["1000"]).pid);
    setInterval(() => {}, 1000);`;
  const run = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", program],
    stdout: "piped",
  }).spawn();
  const reader = run.stdout.getReader();
  const pid = Number(new TextDecoder().decode((await reader.read()).value));
  run.kill("SIGKILL");
  await run.status;
  await reader.cancel();
  ok(isAlive(pid));
  throws(newLab, GretunError);
  deepStrictEqual(
    await Lab.removeLeftovers(PREFIX),
    ["host", "internet", "nat"].map((name) => PREFIX + name),
  );
  ok(!isAlive(pid));
  await using _lab = newLab();
});

Deno.test("Lab: another program's namespace is not taken over", async () => {
  using _netns = createNamedNetns(`${PREFIX}theirs`);
  throws(newLab, /exist already: gretun-test-\d+-theirs$/);
  deepStrictEqual(await Lab.removeLeftovers(PREFIX), [`${PREFIX}theirs`]);
});
