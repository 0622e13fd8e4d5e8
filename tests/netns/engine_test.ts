/** The data path's threads between two hosts of the lab, on the real kernel. Needs root. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { createHash } from "node:crypto";
import { type Cidr, type Endpoint, type Ip, parseCidr } from "../../lib/addr.ts";
import { systemRandom } from "../../lib/edges.ts";
import { Engine, type EngineLink } from "../../lib/engine/mod.ts";
import type { LinkSeal } from "../../lib/engine/messages.ts";
import { type Host, Lab } from "../lab/mod.ts";
import { Epoll, raiseFileLimit } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { SessionCounters } from "../../lib/session_counters.ts";
import { randomBytes, seededRandom } from "../ip_packets.ts";
import { until } from "../overlay.ts";
import { pingWithoutLoss } from "../pings.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();
new Epoll()[Symbol.dispose]();
raiseFileLimit();

const PORT = 7777;
const TCP_PORT = 5000;
const MTU = 1400;
const IFNAME = "engine0";
const MEGABYTE = 1_000_000;
const PEERS = 200;
/** As a STUN message has it, and with a length of its own. */
const SIGNAL = Uint8Array.of(0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, ...new Uint8Array(12));
const SIGNALLING = {
  kind: "patterns",
  any: [{ offset: 4, bytes: SIGNAL.slice(4, 8) }],
} as const;

class End implements AsyncDisposable {
  readonly engine: Engine;
  readonly link: number;
  readonly signals: { bytes: Uint8Array; from: Endpoint; port: number }[] = [];
  onFailed = (reason: string): void => {
    throw new Error(reason);
  };

  constructor(readonly host: Host, encapsulation: "gre" | "sealed") {
    this.engine = host.within(() =>
      Engine.open({
        ...{ port: PORT, encapsulation, control: SIGNALLING, allowFragments: false },
        onControl: (bytes, from, port) => this.signals.push({ bytes, from, port }),
        onTooBig: () => {},
        onFailed: (reason) => this.onFailed(reason),
      })
    );
    this.link = host.within(() => this.engine.addLink(IFNAME));
  }

  async address(...cidrs: string[]): Promise<void> {
    for (const cidr of cidrs) await this.ip("address", "add", cidr, "dev", IFNAME, "nodad");
    await this.ip("link", "set", IFNAME, "mtu", String(MTU), "up");
  }

  async ip(...args: string[]): Promise<void> {
    const { code, stderr } = await this.host.run("ip", args);
    strictEqual(code, 0, stderr);
  }

  to(remote: Ip, more: Partial<EngineLink> = {}): void {
    const link = { mtu: MTU, remote: { ip: remote, port: PORT }, ...more };
    this.host.within(() => this.engine.setLink(this.link, link));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.engine[Symbol.asyncDispose]();
  }
}

class Pair implements AsyncDisposable {
  readonly lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-`, ipv6: true });
  readonly a: End;
  readonly b: End;

  private constructor(encapsulation: "gre" | "sealed") {
    const end = (name: string) =>
      new End(this.lab.publicHost(name, { families: "dual" }), encapsulation);
    this.a = end("a");
    this.b = end("b");
  }

  /** With inner addresses 10.9.0.1 and .2, fd09::1 and ::2. */
  static async open(more: Partial<EngineLink> = {}, outer: "ip" | "ip6" = "ip"): Promise<Pair> {
    return await new Pair("gre").#open([more, more], outer);
  }

  /** Encrypted. */
  static async openSealed(): Promise<Pair> {
    return await new Pair("sealed").#open(seals(), "ip");
  }

  async #open([ofA, ofB]: readonly Partial<EngineLink>[], outer: "ip" | "ip6"): Promise<Pair> {
    const { a, b } = this;
    a.to(b.host[outer]!, ofA);
    b.to(a.host[outer]!, ofB);
    await a.address("10.9.0.1/24", "fd09::1/64");
    await b.address("10.9.0.2/24", "fd09::2/64");
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.a[Symbol.asyncDispose]();
    await this.b[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
  }
}

/** Of both ends of a session. */
function seals(): { seal: LinkSeal }[] {
  const [id, one, other] = [8, 32, 32].map((length) => systemRandom(length)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const keys = [[one, other], [other, one]] as const;
  return keys.map(([sendKey, receiveKey]) => {
    const { memory } = new SessionCounters();
    const session = { ...{ id, sendKey, receiveKey, memory }, encrypt: true };
    return { seal: { sending: session, taking: [session], anySource: false } };
  });
}

/** Sends the bytes by TCP and compares what arrives. */
async function transfer(
  from: Host,
  to: Host,
  hostname: string,
  bytes: Uint8Array,
  port = TCP_PORT,
) {
  using listener = to.within(() => Deno.listen({ hostname, port }));
  const arriving = (async () => {
    const hash = createHash("sha256");
    using connection = await listener.accept();
    const buffer = new Uint8Array(256 * 1024);
    for (let n; (n = await connection.read(buffer)) !== null;) hash.update(buffer.subarray(0, n));
    return hash.digest("hex");
  })();
  // An object, because a promise would be waited for inside.
  const { connecting } = from.within(() => ({ connecting: Deno.connect({ hostname, port }) }));
  const send = async () => {
    const writer = (await connecting).writable.getWriter();
    await writer.write(bytes);
    await writer.close();
  };
  const [arrived] = await Promise.all([arriving, send()]);
  strictEqual(arrived, createHash("sha256").update(bytes).digest("hex"), hostname);
}

async function ping(from: Host, ip: string, ...more: string[]): Promise<string> {
  const { stdout } = await from.run("ping", ["-n", "-c", "1", "-W", "2", ...more, ip]);
  return stdout;
}

/** Fails unless it answers, however late. */
const answers = (from: Host, ip: string) => pingWithoutLoss(from, ip, { count: 1 });

const BYTES = randomBytes(seededRandom(1), MEGABYTE);
const MANY = new Uint8Array(20 * MEGABYTE).map((_, i) => BYTES[(i * 7) % MEGABYTE]!);

for (const outer of ["ip", "ip6"] as const) {
  Deno.test(`streams both ways at once are whole, ${outer === "ip" ? "IPv4" : "IPv6"} outside`, async () => {
    await using pair = await Pair.open({ keys: { ikey: 5, okey: 5 } }, outer);
    const [a, b] = [pair.a.host, pair.b.host];
    await Promise.all([
      transfer(a, b, "10.9.0.2", MANY),
      transfer(b, a, "fd09::1", MANY),
      transfer(a, b, "fd09::2", BYTES, TCP_PORT + 1),
    ]);
    for (const { engine } of [pair.a, pair.b]) {
      // What the kernel says of its own before the other device is up is not looked at.
      const { device: _, ...drops } = engine.drops();
      ok(Object.values(drops).every((count) => count === 0), JSON.stringify(drops));
    }
  });
}

Deno.test("200 peers with traffic at once: each gets its own, and none costs a thread", async () => {
  await using pair = await Pair.open();
  const ends = [pair.a, pair.b];
  const threads = threadCount();
  const numbers = Array.from({ length: PEERS }, (_, i) => i);
  for (const [which, { engine, host }] of ends.entries()) {
    const [own, far] = [1 + which, 2 - which];
    const remote = ends[1 - which]!.host.ip;
    const commands = numbers.flatMap((i) => {
      const link = host.within(() => engine.addLink(`peer${i}`));
      const keys = { ikey: 1000 * own + i, okey: 1000 * far + i };
      const sources = [parseCidr(`10.10.${i}.${far}/32`)];
      engine.setLink(link, { mtu: MTU, remote: { ip: remote, port: PORT }, keys, sources });
      return [
        `address add 10.10.${i}.${own} peer 10.10.${i}.${far} dev peer${i}`,
        `link set peer${i} mtu ${MTU} up`,
      ];
    });
    const batch = `printf '${commands.join("\\n")}\\n' | ip -batch -`;
    strictEqual((await host.run("sh", ["-c", batch])).code, 0);
  }
  const [a, b] = [pair.a.host, pair.b.host];
  await Promise.all(numbers.map((i) => {
    const bytes = BYTES.slice(i, i + 100_000);
    return i % 2 === 0
      ? transfer(a, b, `10.10.${i}.2`, bytes)
      : transfer(b, a, `10.10.${i}.1`, bytes);
  }));
  ok(threadCount() < threads + PEERS / 10, `${threadCount()} threads, ${threads} before`);
  for (const { engine } of ends) strictEqual(engine.drops()["wrong-inner-address"], 0);
});

Deno.test("signalling on the data's port comes through while data flows", async () => {
  await using pair = await Pair.open();
  const { a, b } = pair;
  const signals = (async () => {
    const to = { ip: b.host.ip, port: PORT };
    for (let i = 0; i < 20; i++) {
      a.engine.send(SIGNAL, to, i % 2 === 0 ? {} : { ttl: 9 });
      await until("a signal", async () => b.signals.length > i);
    }
  })();
  await Promise.all([transfer(a.host, b.host, "10.9.0.2", MANY), signals]);
  deepStrictEqual(b.signals[0], {
    ...{ bytes: SIGNAL, from: { ip: a.host.ip, port: PORT }, port: PORT },
  });
});

Deno.test("an extra port carries signalling and a link's data", async () => {
  await using pair = await Pair.open();
  const { a, b } = pair;
  const port = a.host.within(() => a.engine.openPort());
  a.engine.send(SIGNAL, { ip: b.host.ip, port: PORT }, { localPort: port });
  await until("the signal", async () => b.signals.length > 0);
  strictEqual(b.signals[0]!.from.port, port);
  a.to(b.host.ip, { localPort: port });
  b.to(a.host.ip, { remote: { ip: a.host.ip, port } });
  await answers(a.host, "10.9.0.2");
  a.engine.closePort(port);
  match(await ping(a.host, "10.9.0.2"), / 100% packet loss/);
  strictEqual(a.engine.drops()["no-path"] > 0, true);
});

Deno.test("a sender is told what cannot be carried", async () => {
  await using pair = await Pair.open();
  const { a, b } = pair;
  a.engine.setLink(a.link, { mtu: MTU });
  for (const ip of ["10.9.0.2", "fd09::2"]) {
    match(await ping(a.host, ip), /Destination Host Unreachable|unreachable: No route/i, ip);
  }
  a.to(b.host.ip, { mtu: 1300 });
  await a.ip("link", "set", IFNAME, "mtu", "3000");
  match(await ping(a.host, "10.9.0.2", "-M", "do", "-s", "2000"), /mtu ?= ?1300/);
});

Deno.test("a far end's packets come from its own inner addresses alone", async () => {
  const sources: Cidr[] = [parseCidr("10.9.0.2/32")];
  await using pair = await Pair.open();
  const { a, b } = pair;
  a.to(b.host.ip, { sources });
  await answers(b.host, "10.9.0.1");
  await b.ip("address", "add", "10.9.0.3/24", "dev", IFNAME);
  match(await ping(b.host, "10.9.0.1", "-I", "10.9.0.3"), / 100% packet loss/);
  ok(a.engine.drops()["wrong-inner-address"] > 0);
});

Deno.test("a link that is removed is gone at once, and its number can be used again", async () => {
  await using pair = await Pair.open();
  const { a, b } = pair;
  const before = openDescriptors();
  for (let i = 0; i < 30; i++) {
    a.engine.removeLink(a.link);
    strictEqual((await a.host.run("ip", ["link", "show", IFNAME])).code, 1);
    strictEqual(a.host.within(() => a.engine.addLink(IFNAME)), a.link);
  }
  await a.address("10.9.0.1/24");
  a.to(b.host.ip);
  await answers(a.host, "10.9.0.2");
  ok(openDescriptors() < before + 10, `${openDescriptors()} descriptors, ${before} before`);
});

Deno.test("a device that somebody deletes does not keep a thread busy", async () => {
  await using pair = await Pair.open();
  const { a } = pair;
  await a.ip("link", "delete", IFNAME);
  const before = cpuTicks();
  await ping(a.host, pair.b.host.ip);
  ok(cpuTicks() - before < 50, "half a second of CPU in a moment");
  a.engine.removeLink(a.link);
});

for (const open of [Pair.open, Pair.openSealed]) {
  const what = open === Pair.open ? "as they are" : "sealed";
  Deno.test(`there is one thread until there is something to do, and streams are whole when another joins: ${what}`, async () => {
    await using pair = await open();
    const { a, b } = pair;
    await answers(a.host, "10.9.0.2");
    await busy(pair);
    for (const { engine } of [a, b]) {
      const { replayed, "bad-tag": badTag } = engine.drops();
      deepStrictEqual({ replayed, badTag }, { replayed: 0, badTag: 0 });
    }
    const { engine, link } = a;
    engine.removeLink(link);
    match(await ping(a.host, "10.9.0.2"), / 100% packet loss/);
    ok(b.engine.heard(b.link) > 0);
  });
}

Deno.test("a thread that begins before it was told all its links takes the rest, too", async () => {
  await using pair = await Pair.open();
  const { a, b } = pair;
  // As where this thread gets no processor time just then.
  const { postMessage } = MessagePort.prototype;
  MessagePort.prototype.postMessage = function (...told: unknown[]) {
    const untilMs = performance.now() + 400;
    while (performance.now() < untilMs);
    Reflect.apply(postMessage, this, told);
  };
  try {
    await busy(pair);
  } finally {
    MessagePort.prototype.postMessage = postMessage;
  }
  await answers(a.host, "10.9.0.2");
  await transfer(b.host, a.host, "10.9.0.1", BYTES);
});

/** Until each engine has its second thread, and that reads the device. */
async function busy({ a, b }: Pair): Promise<void> {
  await until("one thread of each engine, and none of others", async () => threads() === 2);
  await until("four threads", async () => {
    await transfer(a.host, b.host, "10.9.0.2", MANY);
    return threads() === 4;
  });
  await until("devices to be handed over", async () => {
    const waits = waitedFor().filter((files) => files.includes("/dev/net/tun"));
    return waits.length === 2 && !waits.flat().some((file) => file.startsWith("socket:"));
  });
}

/** By each epoll of this process: what it waits for. */
function waitedFor(): string[][] {
  const file = (fd: string) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // it has just been closed
    }
  };
  return [...Deno.readDirSync("/proc/self/fd")]
    .filter(({ name }) => file(name) === "anon_inode:[eventpoll]")
    .map(({ name }) => {
      const info = Deno.readTextFileSync(`/proc/self/fdinfo/${name}`);
      return [...info.matchAll(/^tfd:\s+(\d+)/gm)].map(([, fd]) => file(fd!));
    });
}

/** Of engines, in this process. */
function threads(): number {
  const all = [...Deno.readDirSync("/proc/self/task")];
  return all.filter(({ name }) => {
    try {
      return Deno.readTextFileSync(`/proc/self/task/${name}/comm`).startsWith("worker-");
    } catch {
      return false; // it has just ended
    }
  }).length;
}

for (const count of [1, 2]) {
  Deno.test(`${count} dead threads start again with the links and sockets that there are by then`, async () => {
    await using pair = await Pair.open();
    if (count === 2) await busy(pair);
    await startAgain(pair, count);
  });
}

async function startAgain({ a, b }: Pair, count: number): Promise<void> {
  const reasons: string[] = [];
  a.onFailed = (reason) => reasons.push(reason);
  const before = openDescriptors();
  // Packets meet what is no list of networks.
  a.to(b.host.ip, { sources: { map: () => 5 } as unknown as Cidr[] });
  match(await ping(a.host, "10.9.0.2"), / 100% packet loss/);
  match(await ping(b.host, "10.9.0.1"), / 100% packet loss/);
  await until("all to die", async () => reasons.length === count, () => reasons.join("\n"));
  ok(reasons.every((reason) => reason.includes("TypeError")), reasons.join("\n"));

  a.to(b.host.ip);
  const port = a.host.within(() => a.engine.openPort());
  a.engine.restart();
  await answers(a.host, "10.9.0.2");
  await answers(b.host, "10.9.0.1");
  b.engine.send(SIGNAL, { ip: a.host.ip, port });
  await until("a signal", async () => a.signals.length === 1);
  await transfer(b.host, a.host, "10.9.0.1", BYTES);
  ok(openDescriptors() < before + 5, `${openDescriptors()} descriptors, ${before} before`);
}

const threadCount = () => [...Deno.readDirSync("/proc/self/task")].length;

const openDescriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;

/** Of this process, in hundredths of a second. */
function cpuTicks(): number {
  const fields = Deno.readTextFileSync("/proc/self/stat").replace(/^.*\) /s, "").split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
