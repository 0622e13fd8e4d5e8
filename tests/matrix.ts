/**
 * Every kind of network against every other: hosts of all kinds join one overlay, one after the
 * other, ping those that are there and carry TCP to them. What each pair should find is a pure function of the two
 * kinds; the rest of the file is about finding out what it did.
 */
import { type Ip, parseIp } from "../lib/addr.ts";
import { askDaemon, controlPath, type DaemonReport } from "../lib/daemon/control.ts";
import type { PathKind } from "../lib/daemon/peer_report.ts";
import { errorText } from "../lib/errors.ts";
import { decodeEchoReply, encodeEcho } from "../lib/health/icmp.ts";
import { type Families, type Host, Lab, type Nat, type NatOptions, SYMMETRIC } from "./lab/mod.ts";
import { IcmpSocket, Poller } from "../lib/linux/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";
import { flushConntrack } from "./lab/conntrack.ts";
import { Attack } from "./hostile.ts";
import { giveAddress, Miniupnpd } from "./miniupnpd.ts";
import { GRETUN, sleep, transfer, until } from "./overlay.ts";

const GRETUN_COORD = new URL("../gretun-coord", import.meta.url).pathname;
/** HTTP there, so that networks which let out nothing else reach it. */
const COORDINATOR_PORT = 443;

/** A way to be joined to the internet. */
export interface NetworkKind {
  name: string;
  what: string;
  /** On the way from the internet to the host; none: the host has a public address. */
  nats: readonly Omit<NatOptions, "behind">[];
  /** How many of the NATs, from the internet on, two hosts of this kind have in common. */
  shared?: number;
  families?: Families;
  /** The outermost NAT maps ports for who asks, as home routers do. */
  mapsPorts?: boolean;
}

const OPEN = { filtering: "endpoint-independent" } as const;
const MEDIUM = { filtering: "address-dependent" } as const;
const EASY = {};
const ADDRESS_DEPENDENT = { mapping: "address-dependent", ...MEDIUM } as const;
const SEQUENTIAL = { ...SYMMETRIC, ports: "sequential" } as const;

export const KINDS: readonly NetworkKind[] = [
  { name: "public", what: "no NAT", nats: [] },
  { name: "cone", what: "filtering endpoint-independent", nats: [OPEN] },
  { name: "restricted", what: "filtering address-dependent", nats: [MEDIUM] },
  { name: "easy", what: "filtering address-and-port-dependent", nats: [EASY] },
  {
    name: "adm",
    what: "mapping and filtering address-dependent",
    nats: [ADDRESS_DEPENDENT],
  },
  { name: "hard", what: "mapping address-and-port-dependent, random ports", nats: [SYMMETRIC] },
  {
    name: "hard-seq",
    what: "the same with sequential ports",
    nats: [SEQUENTIAL],
  },
  { name: "cgn-cone", what: "cone behind a carrier's cone", nats: [OPEN, OPEN] },
  { name: "cgn-restr", what: "restricted behind restricted", nats: [MEDIUM, MEDIUM] },
  { name: "cgn-easy", what: "easy behind easy", nats: [EASY, EASY] },
  { name: "cgn-adm", what: "restricted behind adm", nats: [ADDRESS_DEPENDENT, MEDIUM] },
  { name: "cgn-hard", what: "easy behind hard", nats: [SYMMETRIC, EASY] },
  { name: "cgn-seq", what: "easy behind hard-seq", nats: [SEQUENTIAL, EASY] },
  {
    name: "upnp-hard",
    what: "hard, but the router maps ports by PCP, NAT-PMP and UPnP (miniupnpd)",
    nats: [SYMMETRIC],
    mapsPorts: true,
  },
  { name: "same-nat", what: "two hosts behind one easy NAT", nats: [EASY], shared: 1 },
  {
    name: "same-cgn",
    what: "two homes behind one carrier's easy NAT, no hairpinning",
    nats: [EASY, EASY],
    shared: 1,
  },
  {
    name: "hairpin",
    what: "two homes behind one carrier's easy NAT with hairpinning",
    nats: [{ hairpin: true }, EASY],
    shared: 1,
  },
  {
    name: "open-input",
    what: "Linux router that takes what is sent to it",
    nats: [{ openInput: true }],
  },
  {
    name: "udp-443",
    what: "easy, UDP let out to port 443 alone: a relay's ports are others",
    nats: [{ firewall: { udpTo: [443] } }],
  },
  {
    name: "tcp-443",
    what: "easy, TCP let out to port 443 alone, no UDP",
    nats: [{ firewall: { udpTo: [], tcpTo: [443] } }],
  },
  {
    name: "dual",
    what: "easy, and IPv6 behind a stateful firewall",
    nats: [{ ipv6: true }],
    families: "dual",
  },
  {
    name: "ipv6",
    what: "IPv6 alone behind a stateful firewall",
    nats: [{ ipv6: true }],
    families: "ipv6",
  },
  {
    name: "mtu-1280",
    what: "easy, larger packets disappear without a word",
    nats: [{ uplink: { mtu: 1280 } }],
  },
  {
    name: "mtu-1492",
    what: "easy, larger packets disappear without a word",
    nats: [{ uplink: { mtu: 1492 } }],
  },
  {
    name: "far",
    what: "easy, 50 ms away, 5 % of packets lost each way",
    nats: [{ uplink: { delayMs: 50, lossRate: 0.05 } }],
  },
];

export type Expected = PathKind | "none";

/**
 * The best path that there is between two kinds. Two hosts of one kind may have NATs in common.
 */
export function expectedPath(a: NetworkKind, b: NetworkKind): Expected {
  const shared = a === b ? a.shared ?? 0 : 0;
  if (a.nats.length > 0 && shared === a.nats.length) return "lan";
  if (hasIpv6(a) && hasIpv6(b)) return "direct";
  if (isMapped(a, b) || isMapped(b, a)) return "port-mapped";
  if (canPunch(a, b, shared)) return "direct";
  return hasFreeUdp(a) && hasFreeUdp(b) ? "relay-udp" : "relay-tcp";
}

const hasIpv6 = ({ families = "ipv4" }: NetworkKind) => families !== "ipv4";
const hasIpv4 = ({ families = "ipv4" }: NetworkKind) => families !== "ipv6";
const hasFreeUdp = ({ nats }: NetworkKind) => nats.every(({ firewall }) => !firewall?.udpTo);

function canPunch(a: NetworkKind, b: NetworkKind, shared: number): boolean {
  if (!hasIpv4(a) || !hasIpv4(b) || !hasFreeUdp(a) || !hasFreeUdp(b)) return false;
  if (shared > 0 && !a.nats[shared - 1]!.hairpin) return false;
  if (admits(a, b) || admits(b, a)) return true; // it is answered to where it came from
  return isPredictable(a) && isPredictable(b);
}

function isMapped(a: NetworkKind, b: NetworkKind): boolean {
  return a.mapsPorts === true && hasIpv4(b) && hasFreeUdp(b);
}

/** A datagram from `b` gets in at the address by which `a` is known, once `a` has pinged `b`'s. */
function admits(a: NetworkKind, b: NetworkKind): boolean {
  const filterings = a.nats.map(({ filtering = "address-and-port-dependent" }) => filtering);
  if (!filterings.includes("address-and-port-dependent")) return true;
  return hasOnePort(a) && hasOnePort(b);
}

function hasOnePort({ nats }: NetworkKind): boolean {
  return nats.every(({ mapping = "endpoint-independent" }) => mapping === "endpoint-independent");
}

function isPredictable({ nats }: NetworkKind): boolean {
  return nats.every(({ mapping = "endpoint-independent", ports }) =>
    mapping === "endpoint-independent" || ports === "sequential"
  );
}

/** One host of a kind, with `gretun up` running on it once it has joined. */
class Member {
  readonly kind: NetworkKind;
  readonly host: Host;
  readonly stateDir: string;
  /** When its program was started. */
  startMs = 0;
  tunnelIp: Ip | undefined;
  child: Deno.ChildProcess | undefined;
  socket: IcmpSocket | undefined;
  log = "";

  constructor(kind: NetworkKind, host: Host, directory: string) {
    this.kind = kind;
    this.host = host;
    this.stateDir = `${directory}/${host.name}`;
  }

  get name(): string {
    return this.host.name;
  }

  report(): Promise<DaemonReport | undefined> {
    return askDaemon(controlPath(this.stateDir)).catch(() => undefined);
  }

  async leave(): Promise<void> {
    this.closeSocket();
    this.child?.kill("SIGTERM");
    await this.child?.status;
  }

  closeSocket(): void {
    this.socket?.[Symbol.dispose]();
    this.socket = undefined;
  }
}

/** What became of two hosts: the first was there when the second joined. */
export interface PairResult {
  first: NetworkKind;
  second: NetworkKind;
  expected: Expected;
  path: Expected;
  /** From the start of the second's program to the first ping of the first that was answered. */
  firstPingMs: number | undefined;
  /** Why it is not as expected; undefined if it is. */
  problem?: string;
}

export interface MatrixOptions {
  plane: "fou" | "tun";
  /** Two hosts of every one of these join. */
  kinds: readonly NetworkKind[];
  /** How long after the last one joined paths may still become what is expected. */
  settleMs?: number;
}

/** At most: more at once would say more about this machine than about the networks. */
const KINDS_AT_ONCE = 7;

/** All but the slowest of those that are expected to be direct are by then. */
const JOIN_MS = 1_500;
const PING_INTERVAL_MS = 50;
/** Of pairs that have waited for so long. */
const SLOW_AFTER_MS = 3_000;
const SLOW_INTERVAL_MS = 500;
/** Ports are guessed for one peer after the other: a second attempt has to wait for all the others. */
const SETTLE_MS = 90_000;
const TRANSFERS_AT_ONCE = 4;
const IDENTIFIER = 0x6772;

interface Pair {
  first: Member;
  second: Member;
  sentMs: number;
  answeredMs?: number;
}

/** A lab with two hosts of each kind, copy "a" and copy "b". */
export class Matrix implements AsyncDisposable {
  coordinatorLog = "";
  readonly lab: Lab;
  readonly #coord: Host;
  readonly #directory = Deno.makeTempDirSync();
  readonly #plane: "fou" | "tun";
  readonly #settleMs: number;
  readonly #members: { a: Member; b: Member }[];
  /** The outermost ones of copies "a". */
  readonly #nats = new Map<NetworkKind, Nat>();
  readonly #routers = new Set<Nat>();
  /** NATs that map ports. */
  readonly #mapping: Nat[] = [];
  readonly #gateways: Miniupnpd[] = [];
  /** Of those that have joined; a ping's sequence number is the index of its pair. */
  #pairs: Pair[] = [];
  readonly #logs: Promise<void>[] = [];
  readonly #poller = new Poller();

  static async start(options: MatrixOptions): Promise<Matrix> {
    const matrix = new Matrix(options);
    try {
      await matrix.#startCoordinator();
      await matrix.#startGateways();
      return matrix;
    } catch (error) {
      await matrix[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor({ plane, kinds, settleMs = SETTLE_MS }: MatrixOptions) {
    this.#plane = plane;
    this.#settleMs = settleMs;
    this.lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-`, ipv6: true });
    this.#coord = this.lab.publicHost("coord", { families: "dual" });
    this.#members = kinds.map((kind) => {
      const a = place(this.lab, kind, "a", []);
      const b = place(this.lab, kind, "b", a.nats.slice(0, kind.shared ?? 0));
      if (a.nats[0]) this.#nats.set(kind, a.nats[0]);
      for (const nat of [...a.nats, ...b.nats]) this.#routers.add(nat);
      if (kind.mapsPorts) this.#mapping.push(a.nats[0]!, b.nats[0]!);
      const member = ({ host }: Place) => new Member(kind, host, this.#directory);
      return { a: member(a), b: member(b) };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { a, b } of this.#members) for (const member of [a, b]) member.closeSocket();
    for (const gateway of this.#gateways) await gateway[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
    await this.#poller[Symbol.asyncDispose]();
    await Promise.all(this.#logs);
    await Deno.remove(this.#directory, { recursive: true });
  }

  async #startCoordinator(): Promise<void> {
    // As it would be on a machine of its own: all the others wait for it.
    const args = ["-n", "-10", GRETUN_COORD, "--listen", `:${COORDINATOR_PORT}`];
    args.push("--state", ":memory:");
    const env = { STATE_DIRECTORY: this.#directory };
    this.#follow(this.#coord.spawn("nice", args, { stderr: "piped", env }), (text) => {
      this.coordinatorLog += text;
    });
    await until("the coordinator to listen", async () => {
      try {
        const { connecting } = this.#coord.within(() => ({
          connecting: Deno.connect({ hostname: "127.0.0.1", port: COORDINATOR_PORT }),
        }));
        (await connecting).close();
        return true;
      } catch {
        return false;
      }
    });
  }

  /** Strangers on the internet, and behind the first NAT that lets everybody in. */
  attack(): Promise<Attack> {
    const open = [...this.#nats].find(([{ nats }]) => nats[0] === OPEN);
    return Attack.start(this.lab, open![1]);
  }

  async #startGateways(): Promise<void> {
    for (const [i, nat] of this.#mapping.entries()) {
      const ip = parseIp(`192.0.1.${i + 1}`);
      giveAddress(nat, ip);
      using routes = this.lab.internet.within(() => RtNetlink.open());
      const device = routes.link("internet")!.ifindex;
      routes.addRoute({ destination: { ip, prefixLength: 32 }, gateway: nat.ip, device });
      this.#gateways.push(await Miniupnpd.start(nat, [`ext_ip=${ip}`, "enable_natpmp=yes"]));
    }
  }

  /** Resolves to what every copy "a" and copy "b" have found of each other. */
  async run(): Promise<PairResult[]> {
    const count = Math.ceil(this.#members.length / KINDS_AT_ONCE);
    const size = Math.ceil(this.#members.length / count);
    const parts = Array.from(
      { length: count },
      (_, i) => this.#members.slice(i * size, (i + 1) * size),
    );
    const results = [];
    for (const first of parts) {
      for (const second of parts) {
        results.push(...await this.#meet(first.map(({ a }) => a), second.map(({ b }) => b)));
      }
    }
    return results;
  }

  /**
   * The same of these pairs alone, "a" of the first and "b" of the second kind: by their names.
   * Those with a kind that is not there are left out.
   */
  async runPairs(pairs: readonly (readonly [string, string])[]): Promise<PairResult[]> {
    const memberOf = (name: string) => this.#members.find(({ a }) => a.kind.name === name);
    const results = [];
    for (const [first, second] of pairs) {
      const [a, b] = [memberOf(first)?.a, memberOf(second)?.b];
      if (a && b) results.push(...await this.#meet([a], [b]));
    }
    return results;
  }

  /** They join one by one, the second ones when all the first are there, and leave again. */
  async #meet(first: Member[], second: Member[]): Promise<PairResult[]> {
    const joined: Member[] = [];
    this.#pairs = [];
    const stop = new AbortController();
    const pinging = this.#keepPinging(stop.signal);
    for (const member of [...first, ...second]) {
      const others = second.includes(member) ? first : [];
      await this.#join(member, others);
      joined.push(member);
    }
    const results = await this.#settle(joined);
    stop.abort();
    await pinging;
    await this.#carryTcp(results);
    await Promise.all(joined.map((member) => member.leave()));
    // Who meets next has never been there before.
    for (const router of this.#routers) router.within(() => flushConntrack());
    return results;
  }

  /** What the daemons of one kind have logged. */
  log(kind: NetworkKind): string {
    return this.#members.filter(({ a }) => a.kind === kind).flatMap(({ a, b }) => [a, b])
      .map(({ name, log }) => `--- ${name}\n${log}`).join("\n");
  }

  /** Waits until it has reached those others that it can reach directly, for a moment at most. */
  async #join(member: Member, others: readonly Member[]): Promise<void> {
    const { host, stateDir, name } = member;
    const coordIp = host.ip === host.ip6 ? `[${this.#coord.ip6}]` : this.#coord.ip;
    const url = `http://${coordIp}:${COORDINATOR_PORT}`;
    const args = ["up", "--coordinator", url, "--state-dir", stateDir, "--node-name", name];
    member.startMs = performance.now();
    member.child = host.spawn(GRETUN, [...args, "--data-plane", this.#plane], { stderr: "piped" });
    this.#follow(member.child, (text) => member.log += text);
    const tunnelIp = await until(
      `${name} to be registered`,
      async () => (await member.report())?.tunnel_ip,
      () => member.log,
    );
    member.tunnelIp = parseIp(tunnelIp.split("/")[0]!);
    member.socket = this.#openSocket(member);
    const pairs = others.map((first): Pair => ({ first, second: member, sentMs: 0 }));
    this.#pairs.push(...pairs);
    const deadline = performance.now() + JOIN_MS;
    while (performance.now() < deadline && pairs.some(isAwaited)) await sleep(PING_INTERVAL_MS);
  }

  #openSocket(member: Member): IcmpSocket {
    return member.host.within(() =>
      IcmpSocket.open({ family: 4, poller: this.#poller }, ({ from, message }) => {
        const echo = decodeEchoReply(4, message);
        if (echo?.identifier !== IDENTIFIER) return;
        const pair = this.#pairs[echo.sequence];
        if (pair?.second === member && pair.first.tunnelIp === from) {
          pair.answeredMs ??= performance.now();
        }
      })
    );
  }

  async #keepPinging(signal: AbortSignal): Promise<void> {
    const data = new Uint8Array(56);
    while (!signal.aborted) {
      const nowMs = performance.now();
      for (const [sequence, pair] of this.#pairs.entries()) {
        const { first, second, sentMs, answeredMs } = pair;
        const isSlow = nowMs - second.startMs > SLOW_AFTER_MS;
        if (answeredMs !== undefined || isSlow && nowMs - sentMs < SLOW_INTERVAL_MS) continue;
        pair.sentMs = nowMs;
        try {
          const echo = encodeEcho(4, { identifier: IDENTIFIER, sequence, data });
          second.socket!.send(echo, first.tunnelIp!);
        } catch {
          // there is no route for it yet
        }
      }
      await sleep(PING_INTERVAL_MS);
    }
  }

  /** Asks all daemons until every path is as expected, or the time is up. */
  async #settle(members: readonly Member[]): Promise<PairResult[]> {
    const deadline = performance.now() + this.#settleMs;
    while (true) {
      const reports = new Map<Member, DaemonReport | undefined>();
      for (const member of members) reports.set(member, await member.report());
      const results = this.#pairs.map((pair) => result(pair, reports));
      const isDone = results.every(({ problem }) => problem === undefined);
      if (isDone || performance.now() > deadline) return results;
      await sleep(1_000);
    }
  }

  /** Between those who ping each other, a few pairs at once; notes where it fails. */
  async #carryTcp(results: readonly PairResult[]): Promise<void> {
    const waiting = this.#pairs.map((pair, i) => ({ ...pair, result: results[i]! }))
      .filter(({ answeredMs }) => answeredMs !== undefined);
    const carry = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const { first, second, result } = next;
        const ends = { from: second.host, to: first.host, ip: first.tunnelIp! };
        try {
          await transfer(`${second.name} and ${first.name} to carry TCP`, ends);
        } catch (error) {
          result.problem ??= `TCP does not pass: ${errorText(error)}`;
        }
      }
    };
    await Promise.all(Array.from({ length: TRANSFERS_AT_ONCE }, carry));
  }

  #follow({ stderr }: Deno.ChildProcess, take: (text: string) => void): void {
    this.#logs.push((async () => {
      for await (const text of stderr.pipeThrough(new TextDecoderStream())) take(text);
    })());
  }
}

interface Place {
  kind: NetworkKind;
  nats: Nat[];
  host: Host;
}

/** Behind the NATs that are given, which are the kind's first ones, and new ones for the rest. */
function place(lab: Lab, kind: NetworkKind, copy: "a" | "b", known: readonly Nat[]): Place {
  const nats = [...known];
  for (const [i, options] of kind.nats.entries()) {
    if (i < known.length) continue;
    const behind = nats.at(-1);
    const name = `${natName(kind)}-${i}${copy}`;
    nats.push(lab.nat(name, { ...options, ...(behind ? { behind } : {}) }));
  }
  const { families = "ipv4" } = kind;
  const behind = nats.at(-1);
  const name = `${kind.name}-${copy}`;
  const host = behind ? lab.host(name, { behind, families }) : lab.publicHost(name, { families });
  return { kind, nats, host };
}

/** Short enough for the name of an interface. */
function natName({ name }: NetworkKind): string {
  return `n${KINDS.findIndex((kind) => kind.name === name)}`;
}

function isAwaited({ first, second, answeredMs }: Pair): boolean {
  const expected = expectedPath(first.kind, second.kind);
  return answeredMs === undefined && (expected === "direct" || expected === "lan");
}

function result(
  { first, second, answeredMs }: Pair,
  reports: ReadonlyMap<Member, DaemonReport | undefined>,
): PairResult {
  const pathOf = (from: Member, to: Member) =>
    reports.get(from)?.peers.find(({ name }) => name === to.name)?.path;
  const paths = [pathOf(first, second), pathOf(second, first)];
  const expected = expectedPath(first.kind, second.kind);
  const path = worst(paths);
  const problem = answeredMs === undefined
    ? expected === "none" ? undefined : "no ping is answered"
    : WORST_FIRST.indexOf(path) >= WORST_FIRST.indexOf(expected)
    ? undefined
    : path;
  return {
    first: first.kind,
    second: second.kind,
    expected,
    path: answeredMs === undefined ? "none" : path,
    firstPingMs: answeredMs === undefined ? undefined : Math.round(answeredMs - second.startMs),
    ...(problem === undefined ? {} : { problem }),
  };
}

const WORST_FIRST = [
  "none",
  "relay-tcp",
  "relay-udp",
  "tunnel",
  "port-mapped",
  "direct",
  "lan",
] as const;

/** Each side says how it reaches the other, and need not use what the other does. */
function worst(paths: readonly (PathKind | undefined)[]): Expected {
  return WORST_FIRST.find((kind) => paths.some((path) => (path ?? "none") === kind))!;
}

const SHORT: Record<Expected, string> = {
  lan: "L",
  direct: "D",
  "port-mapped": "M",
  tunnel: "V",
  "relay-udp": "U",
  "relay-tcp": "T",
  none: "-",
};

/** A few pairs, every kind among them. */
export const SAMPLE = [
  ["public", "udp-443"],
  ["cone", "hard"],
  ["restricted", "hard-seq"],
  ["easy", "cgn-seq"],
  ["adm", "cgn-cone"],
  ["cgn-restr", "cgn-adm"],
  ["cgn-easy", "open-input"],
  ["cgn-hard", "far"],
  ["upnp-hard", "hard"],
  ["same-nat", "same-nat"],
  ["same-cgn", "same-cgn"],
  ["hairpin", "hairpin"],
  ["tcp-443", "mtu-1280"],
  ["dual", "mtu-1492"],
  ["ipv6", "dual"],
] as const;

/** Rows: who was there first; columns: who joined. What is not as expected is marked. */
export function formatMatrix(results: readonly PairResult[]): string {
  const kinds = KINDS.filter((kind) =>
    results.some(({ first, second }) => first === kind || second === kind)
  );
  const letter = (kind: NetworkKind) => String.fromCharCode(65 + kinds.indexOf(kind));
  const cell = (first: NetworkKind, second: NetworkKind) => {
    const found = results.find((r) => r.first === first && r.second === second);
    if (!found) return "";
    const { path, firstPingMs = "", problem } = found;
    return `${SHORT[path]} ${firstPingMs}${problem === undefined ? "" : "!"}`;
  };
  const width = Math.max(...kinds.map(({ name }) => name.length)) + 2;
  const line = (cells: string[]) => cells.map((text) => text.padEnd(8)).join("").trimEnd();
  return [
    ...kinds.map((kind) => `${letter(kind)} ${kind.name.padEnd(width)}${kind.what}`),
    "",
    "L lan, D direct, M port-mapped, U relay-udp, T relay-tcp, - none; ms from the start of gretun up",
    "on the host of the column, which joins last, to its first answered ping; ! not as expected",
    "",
    " ".repeat(width + 2) + line(kinds.map(letter)),
    ...kinds.map((first) =>
      `${letter(first)} ${first.name.padEnd(width)}${
        line(kinds.map((second) => cell(first, second)))
      }`
    ),
  ].join("\n");
}

/** One line for each pair that is not as expected. */
export function problems(results: readonly PairResult[]): string[] {
  return results.filter(({ problem }) => problem !== undefined).map((r) =>
    `${r.first.name} and ${r.second.name}: expected ${r.expected}, but ${r.problem}`
  );
}
