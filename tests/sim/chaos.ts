/**
 * Randomised schedules: everything around some daemons goes wrong, in an order that follows from a
 * seed. After the last disturbance every tunnel carries data again within 10 s, no daemon has ended, no
 * data has gone to an address that never answered, and no minute has more than two packets a second and
 * peer that are not data. Some schedules go on with a direct way that is blocked for minutes while data
 * flows by the relay: it is found again.
 *
 *     deno task chaos --schedules 100000 --seed 300001 --jobs 2
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Ip, isLoopback, parseIp } from "../../lib/addr.ts";
import { isDisco } from "../../lib/disco/mod.ts";
import { isStun } from "../../lib/stun/mod.ts";
import {
  Dice,
  FAIR,
  FULL_CONE,
  type NatBehaviour,
  NO_UDP,
  PORT_RESTRICTED,
  type SimCoordinator,
  type SimHost,
  type SimNode,
  type Site,
  SYMMETRIC,
  World,
} from "./world/mod.ts";
import { lightWeb } from "./world/light_web.ts";

const RECOVERS_WITHIN_MS = 10_000;
const MINUTE_MS = 60_000;
/** So that what a relayed pair does after its first minute is seen, too. */
const IDLE_MS = 150_000;
/** Looking at idle tunnels takes longer than all the rest: not every schedule does. */
const IDLE_EACH = 20;
const IDLE_PACKETS_PER_SECOND = 2;
/** Nor does every one block direct ways. */
const BLOCKED_EACH = 20;
const BLOCKED = 10;
const FLOW_GAP_MS = 250;
/** Pairs that can meet have met by then. */
const MEETS_WITHIN_MS = 60_000;
/** A round of the search, and some more if packets were lost. */
const MEETS_AGAIN_WITHIN_MS = 130_000;
/** So many run on Deno's own requests and signals; they take twice as long. */
const OWN_WEB_EACH = 20;
const OWN_WEB = 7;
const TELL_EACH = 1_000;
/** Seeds of before have the story that they had. */
const WITH_RENUMBERING_FROM = 300_000;
const KINDS_OF_BEFORE = 12;
const NATS: readonly NatBehaviour[] = [
  PORT_RESTRICTED,
  { ...PORT_RESTRICTED, ports: "random" },
  FULL_CONE,
  SYMMETRIC,
  { ...SYMMETRIC, ports: "sequential" },
  NO_UDP,
];

const HTML = "<!doctype html><html><body>log in</body></html>";
const NONSENSE: readonly (() => Response)[] = [
  ...[401, 403, 404, 407, 429, 500, 502, 503].map((status) => () => new Response(HTML, { status })),
  () => new Response(HTML),
  () => new Response(""),
  () => Response.json({ status: "maintenance" }),
  () => new Response(HTML, { status: 401, headers: { date: "Thu, 01 Jan 1970 00:00:00 GMT" } }),
];

interface Member {
  node: SimNode;
  host: SimHost;
  /** Where it is; undefined for a public address. */
  site?: Site;
  device: string;
  /** When it sent by UDP what is not data; and to whom data may go. */
  sentMs: number[];
  answered: Set<string>;
  strayed?: string;
}

class Schedule {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #coordinator: SimCoordinator;
  readonly #members: Member[] = [];
  readonly #story: string[] = [];
  #moves = 0;
  #pools = 0;
  /** Of disturbances. */
  #kinds = Infinity;

  private constructor(world: World, dice: Dice, coordinator: SimCoordinator) {
    this.#world = world;
    this.#dice = dice;
    this.#coordinator = coordinator;
  }

  /** What went wrong, with the story so far; undefined if nothing did. */
  static async run(seed: number): Promise<string | undefined> {
    const dice = new Dice(seed);
    await using world = new World(dice.u32());
    const schedule = new Schedule(world, dice, await world.coordinator());
    if (seed < WITH_RENUMBERING_FROM) schedule.#kinds = KINDS_OF_BEFORE;
    const fault = await schedule.#run({
      looksAtIdle: seed % IDLE_EACH === 0,
      blocksWays: seed % BLOCKED_EACH === BLOCKED,
    });
    if (fault && Deno.env.get("CHAOS_LOG")) schedule.#printLogs();
    return fault && `${fault}\n    ${schedule.#story.join("\n    ")}`;
  }

  #printLogs(): void {
    const lines = this.#members.flatMap(({ node }) =>
      node.log.map(({ atMs, level, message, fields }) => ({
        atMs,
        text: `${node.name} ${Math.round(atMs)} ${level} ${message} ${JSON.stringify(fields)}`,
      }))
    );
    for (const { text } of lines.sort((a, b) => a.atMs - b.atMs)) console.log(text);
  }

  async #run(
    { looksAtIdle, blocksWays }: { looksAtIdle: boolean; blocksWays: boolean },
  ): Promise<string | undefined> {
    const dice = this.#dice;
    const count = 2 + Math.floor(4.99 * dice.fraction() ** 3); // most have few: pairs cost time
    for (let i = 0; i < count; i++) await this.#join(`n${i}`);
    await this.#world.run(dice.between(0, 4_000));
    const disturbances = 1 + dice.below(6);
    for (let i = 0; i < disturbances; i++) {
      await this.#disturb();
      await this.#world.run(dice.between(0, 3_000));
    }
    this.#tell("the last disturbance is over");
    for (const member of this.#members) member.sentMs = [];
    return await this.#recovers() ?? await this.#isQuiet(looksAtIdle ? IDLE_MS : 0) ??
      (blocksWays ? await this.#meetsAgain() : undefined);
  }

  #tell(what: string): void {
    this.#story.push(`${Math.round(this.#world.time.nowMs)} ms: ${what}`);
  }

  async #join(name: string): Promise<void> {
    const dice = this.#dice;
    const shared = this.#members.find(({ site }) => site)?.site;
    const site = dice.chance(0.15)
      ? undefined
      : shared && dice.chance(0.2)
      ? shared
      : this.#world.site(dice.pick(NATS));
    const host = site ? this.#world.hostBehind(name, site) : this.#world.publicHost(name);
    const dataPlane = dice.chance(0.3) ? "tun" as const : "fou" as const;
    const node = await this.#world.up(host, this.#coordinator, { dataPlane });
    const member: Member = {
      ...{ node, host, device: "eth0", sentMs: [], answered: new Set() },
      ...(site ? { site } : {}),
    };
    this.#watch(member);
    this.#members.push(member);
    const { mapping, ports, udp } = site?.nat.behaviour ?? {};
    this.#tell(
      `${name} ${site ? `${site.prefix} ${mapping} ${ports} udp ${udp}` : "public"} ${dataPlane}`,
    );
  }

  /** Data to where nothing ever came from has strayed. */
  #watch(member: Member): void {
    member.host.kernel.firewall = (packet, direction) => {
      if (packet.kind !== "udp" || packet.to.port === 9999) return false;
      const { from, to, bytes } = packet;
      if (direction === "in") {
        if (isDisco(bytes)) member.answered.add(`${from.ip} ${from.port}`);
        return false;
      }
      const isSignalling = isDisco(bytes) || isStun(bytes);
      if (isSignalling && !isLoopback(to.ip)) member.sentMs.push(this.#world.time.nowMs);
      if (!isSignalling && !member.answered.has(`${to.ip} ${to.port}`) && from.port === 7777) {
        member.strayed ??= `${to.ip}:${to.port}`;
      }
      return false;
    };
  }

  // --- disturbances

  async #disturb(): Promise<void> {
    const member = this.#dice.pick(this.#members);
    const kinds: readonly (() => Promise<void>)[] = [
      () => this.#stepClock(member),
      () => this.#stepCoordinatorsClock(),
      () => this.#restartCoordinator(),
      () => this.#loseState(),
      () => this.#talkNonsense(),
      () => this.#cutPolls(),
      () => this.#touchLink(member),
      () => this.#rebind(member),
      () => this.#move(member),
      () => this.#loseNetwork(member),
      () => this.#restart(member),
      () => this.#losePackets(),
      () => this.#renumber(member),
    ];
    await this.#dice.pick(kinds.slice(0, this.#kinds))();
  }

  async #stepClock({ host }: Member): Promise<void> {
    host.clock.wallStepMs = this.#step();
    this.#tell(`clock of ${host.name} is off by ${host.clock.wallStepMs / 1000} s`);
  }

  async #stepCoordinatorsClock(): Promise<void> {
    const { clock } = this.#coordinator.host;
    clock.wallStepMs = this.#step();
    this.#tell(`clock of the coordinator is off by ${clock.wallStepMs / 1000} s`);
  }

  #step(): number {
    return this.#dice.pick([0, 90, -90, 3_600, -7_200, 86_400, -86_400]) * 1000;
  }

  async #restartCoordinator(): Promise<void> {
    const awayMs = this.#dice.between(100, 12_000);
    this.#tell(`coordinator is away for ${Math.round(awayMs)} ms`);
    this.#coordinator.stop();
    await this.#world.run(awayMs);
    await this.#coordinator.start();
  }

  async #loseState(): Promise<void> {
    const pool = this.#dice.chance(0.5) ? `10.${200 + ++this.#pools}.0.0/24` : undefined;
    this.#tell(`coordinator loses its state${pool ? `, and has pool ${pool}` : ""}`);
    this.#coordinator.stop();
    await this.#world.run(this.#dice.between(100, 5_000));
    await this.#coordinator.startAfresh(pool);
  }

  async #talkNonsense(): Promise<void> {
    const answer = this.#dice.pick(NONSENSE);
    const forMs = this.#dice.between(1_000, 12_000);
    this.#tell(`somebody answers ${answer().status} for ${Math.round(forMs)} ms`);
    this.#coordinator.proxy = async () => answer();
    if (this.#dice.chance(0.5)) this.#coordinator.host.resetConnections();
    await this.#world.run(forMs);
    this.#coordinator.proxy = undefined;
  }

  async #cutPolls(): Promise<void> {
    const afterMs = this.#dice.between(1_500, 10_000);
    this.#tell(`a proxy cuts calls after ${Math.round(afterMs)} ms from now on`);
    const { clock } = this.#coordinator.host;
    this.#coordinator.proxy = (_request, pass) => {
      const cut = clock.sleep(afterMs).then(() => new Response(HTML, { status: 504 }));
      return Promise.race([pass(), cut]);
    };
  }

  async #touchLink({ node, host }: Member): Promise<void> {
    const links = [...host.kernel.links.values()].filter(({ name }) => name.startsWith("gretun"));
    if (links.length === 0) return;
    const { name, ifindex } = this.#dice.pick(links);
    const what = this.#dice.pick(["removed", "set down", "without its addresses"]);
    this.#tell(`${node.name}: ${name} is ${what}`);
    if (what === "removed") host.kernel.removeLink(name);
    else if (what === "set down") host.kernel.setUp(name, false);
    else {
      const rtnl = host.openRtNetlink();
      for (const address of rtnl.addresses()) {
        if (address.ifindex === ifindex) rtnl.deleteAddress(address);
      }
    }
  }

  async #rebind({ node, site }: Member): Promise<void> {
    if (!site) return;
    const what = this.#dice.pick(["rebinds", "forgets all", "has another address"]);
    this.#tell(`NAT of ${node.name} ${what}`);
    if (what === "rebinds") site.nat.rebind();
    else if (what === "forgets all") site.nat.flush();
    else site.nat.setOuter(this.#world.publicIp());
  }

  async #move(member: Member): Promise<void> {
    const { host } = member;
    const site = this.#world.site(this.#dice.pick(NATS));
    const { mapping, ports, udp } = site.nat.behaviour;
    this.#tell(`${host.name} moves to ${site.prefix} ${mapping} ${ports} udp ${udp}`);
    host.kernel.setUp(member.device, false);
    if (this.#dice.chance(0.5)) await this.#world.run(this.#dice.between(0, 5_000));
    member.device = `wlan${this.#moves++}`;
    this.#world.plugIntoSite(host, site, member.device);
    member.site = site;
  }

  async #loseNetwork({ host, device }: Member): Promise<void> {
    const forMs = this.#dice.between(500, 12_000);
    this.#tell(`${host.name} has no network for ${Math.round(forMs)} ms`);
    const { routes } = host.kernel;
    host.kernel.setUp(device, false);
    await this.#world.run(forMs);
    host.kernel.setUp(device, true);
    const lost = routes.filter((route) => route.device === host.kernel.ifindex(device));
    for (const route of lost) host.openRtNetlink().addRoute(route);
  }

  async #restart({ node }: Member): Promise<void> {
    const isKilled = this.#dice.chance(0.5);
    this.#tell(`${node.name} is ${isKilled ? "killed" : "stopped"} and started again`);
    if (isKilled) node.kill();
    else {
      const stopped = node.stop();
      await this.#world.until(() => node.ended !== undefined, 5_000);
      await stopped;
    }
    await this.#world.run(this.#dice.between(0, 3_000));
    await node.start();
  }

  /** Another address in the network that it is in. */
  async #renumber({ host, site, device }: Member): Promise<void> {
    const { kernel } = host;
    const ifindex = kernel.ifindex(device);
    const old = kernel.addresses.filter((address) => address.ifindex === ifindex);
    const isOldFirst = this.#dice.chance(0.5);
    const gapMs = this.#dice.between(0, 5_000);
    this.#tell(
      `${host.name} has another address, and ${isOldFirst ? "none" : "both"} for ${
        Math.round(gapMs)
      } ms`,
    );
    const remove = () => {
      for (const { local } of old) {
        if (site) kernel.removeAddress(local);
        else this.#world.removePublicAddress(host, local);
      }
    };
    const add = () => {
      if (!site) return this.#world.addPublicAddress(host, this.#world.publicIp(), ifindex);
      const ip = parseIp(`${site.prefix}.${2 + site.hosts++}`);
      kernel.addAddress(ifindex, ip, 24);
      site.lan.stations.set(ip, host);
    };
    const [first, then] = isOldFirst ? [remove, add] : [add, remove];
    first();
    await this.#world.run(gapMs);
    then();
  }

  async #losePackets(): Promise<void> {
    const loss = this.#dice.pick([0.1, 0.3, 1]);
    const forMs = this.#dice.between(500, 10_000);
    this.#tell(`${loss * 100} % of packets are lost for ${Math.round(forMs)} ms`);
    const weather = { delayMs: 20, jitterMs: 30, loss, duplicates: 0.1 };
    this.#world.internet.weather = weather;
    await this.#world.run(forMs);
    this.#world.internet.weather = FAIR;
  }

  // --- what has to be so

  async #recovers(): Promise<string | undefined> {
    const endMs = this.#world.time.nowMs + RECOVERS_WITHIN_MS;
    const pairs = this.#members.flatMap((a) =>
      this.#members.filter((b) => b !== a).map((b) => [a.node, b.node] as const)
    );
    const broken = new Set(pairs);
    while (broken.size > 0 && this.#world.time.nowMs < endMs) {
      const pinged = [...broken].map(([a, b]) =>
        b.tunnelIp ? a.host.kernel.ping(b.tunnelIp, { timeoutMs: 450 }) : Promise.resolve(undefined)
      );
      await this.#world.run(500);
      const answers = await Promise.all(pinged);
      for (const [i, pair] of [...broken].entries()) {
        if (answers[i] !== undefined) broken.delete(pair);
      }
    }
    for (const { node, strayed } of this.#members) {
      if (node.ended !== undefined) return `${node.name} has ended: ${node.ended}`;
      if (strayed) return `${node.name} has sent data to ${strayed}, which never answered`;
    }
    if (broken.size === 0) return undefined;
    return [...broken].map(([a, b]) =>
      `${a.name} does not reach ${b.name}: ${a.state(b)} ${JSON.stringify(a.peer(b))}`
    ).join("\n  ");
  }

  /**
   * From the last disturbance on: what is told of before has made daemons search, and may have done so
   * several times in a minute. The pings of this test are data.
   */
  async #isQuiet(forMs: number): Promise<string | undefined> {
    await this.#world.run(forMs);
    const limit = IDLE_PACKETS_PER_SECOND * (MINUTE_MS / 1000) * (this.#members.length - 1);
    for (const { node, sentMs } of this.#members) {
      const from = sentMs.find((ms, i) => sentMs[i + limit]! - ms < MINUTE_MS);
      if (from === undefined) continue;
      return `${node.name} has sent more than ${limit} packets in the minute from ${
        Math.round(from)
      } ms on`;
    }
    return undefined;
  }

  /** Direct ways are blocked for minutes, while data flows. */
  async #meetsAgain(): Promise<string | undefined> {
    const pairs = this.#members.flatMap((a, i) => this.#members.slice(i + 1).map((b) => [a, b]))
      .map(([a, b]) => [a!, b!] as const)
      .filter(([a, b]) => isEasy(a) && isEasy(b) && this.#outerOf(a) !== this.#outerOf(b));
    const relayed = () =>
      pairs.filter(([a, b]) =>
        a.node.state(b.node) !== "direct" || b.node.state(a.node) !== "direct"
      );
    const fault = (when: string) => {
      const names = relayed().map(([a, b]) => `${a.node.name} and ${b.node.name}`);
      return names.length === 0 ? undefined : `no direct path ${when}: ${names.join(", ")}`;
    };
    await this.#flow(pairs, MEETS_WITHIN_MS, () => relayed().length === 0);
    const before = fault("at the start");
    if (before) return before;
    const blockedMs = this.#dice.between(10_000, 300_000);
    this.#tell(`direct ways are blocked for ${Math.round(blockedMs)} ms`);
    const { internet } = this.#world;
    for (const [a, b] of pairs) internet.cut(this.#outerOf(a), this.#outerOf(b));
    await this.#flow(pairs, blockedMs);
    const broken = await this.#recovers();
    if (broken) return broken;
    internet.cuts.clear();
    this.#tell("direct ways are open again");
    await this.#flow(pairs, MEETS_AGAIN_WITHIN_MS, () => relayed().length === 0);
    return fault("after all were blocked");
  }

  #outerOf({ site, host }: Member): Ip {
    if (site) return site.nat.outer;
    return [...this.#world.internet.stations].find(([, station]) => station === host)![0];
  }

  async #flow(
    pairs: readonly (readonly [Member, Member])[],
    forMs: number,
    isOver: () => boolean = () => false,
  ): Promise<void> {
    for (const endMs = this.#world.time.nowMs + forMs; this.#world.time.nowMs < endMs;) {
      if (isOver()) return;
      for (const [a, b] of pairs) {
        const { tunnelIp } = b.node;
        if (tunnelIp) void a.host.kernel.ping(tunnelIp, { timeoutMs: FLOW_GAP_MS });
      }
      await this.#world.run(FLOW_GAP_MS);
    }
  }
}

/** Whether others reach it at the one port that its NAT has for all of them. */
function isEasy({ site }: Member): boolean {
  const behaviour = site?.nat.behaviour;
  return !behaviour || (behaviour.udp && behaviour.mapping === "endpoint-independent");
}

// Errors are of interest for what they say.
Error.stackTraceLimit = 0;

/** What went wrong with that seed; undefined if nothing did. */
export async function chaos(seed: number): Promise<string | undefined> {
  using _light = seed % OWN_WEB_EACH === OWN_WEB ? undefined : lightWeb();
  return await Schedule.run(seed);
}

/** Seeds from `first` in steps; tells of each one what went wrong. */
export interface Share {
  first: number;
  count: number;
  step: number;
}

export type Outcome = { seed: number; fault: string | undefined };

/** Resolves when all of a share are done, on a thread of its own. */
function runShare(share: Share, onOutcome: (outcome: Outcome) => void): Promise<void> {
  const worker = new Worker(new URL("./chaos_worker.ts", import.meta.url), { type: "module" });
  return new Promise((resolve) => {
    let left = share.count;
    worker.onmessage = ({ data }: MessageEvent<Outcome>) => {
      onOutcome(data);
      if (--left > 0) return;
      worker.terminate();
      resolve();
    };
    worker.postMessage(share);
  });
}

if (import.meta.main) {
  const flags = parseArgs(Deno.args, {
    string: ["schedules", "seed", "jobs"],
    default: { schedules: "2000", seed: "300001", jobs: "1" },
  });
  const [count, first, jobs] = [flags.schedules, flags.seed, flags.jobs].map(Number);
  const startMs = performance.now();
  let [done, failed] = [0, 0];
  const rate = () => {
    const seconds = (performance.now() - startMs) / 1000;
    return `${done} schedules in ${Math.round(seconds)} s, ${
      (done / seconds).toFixed(1)
    } a second, ${failed} failed`;
  };
  const onOutcome = ({ seed, fault }: Outcome) => {
    if (++done % TELL_EACH === 0) console.log(rate());
    if (!fault) return;
    failed++;
    console.log(`seed ${seed}: ${fault}`);
  };
  const shares = Array.from({ length: jobs! }, (_, job) => ({
    first: first! + job,
    count: Math.ceil((count! - job) / jobs!),
    step: jobs!,
  }));
  await Promise.all(shares.map((share) => runShare(share, onOutcome)));
  console.log(rate());
  Deno.exit(failed > 0 ? 1 : 0);
}
