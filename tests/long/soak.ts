/**
 * Seven nodes in a lab, in networks of all kinds, whose hosts, routers, networks, programs and
 * coordinator are disturbed at random, several at a time. Once all of it is over, each node reaches each
 * other one, 1 MB goes both ways and arrives as it was sent, `status` says what pings say, no program has
 * ended, and none of them grows from hour to hour. Pairs with a direct path that nothing but the
 * coordinator's troubles comes near lose no pings meanwhile.
 *
 *     deno task soak --minutes 60 --seed 7 --data-plane tun
 *
 * Ends at the first fault, with exit code 1 and what all programs logged since the disturbance began.
 * As root, after ./compile.sh; what takes longer on a busy machine is allowed for by --patience.
 */
import { parseArgs } from "@std/cli/parse-args";
import { errorText } from "../../lib/errors.ts";
import type { DaemonReport } from "../../lib/daemon/control.ts";
import { type EgressFirewall, type Nat, type NatBehaviour, NO_UDP, SYMMETRIC } from "../lab/mod.ts";
import { Overlay, type OverlayNode, sleep, transfer } from "../overlay.ts";
import { Dice } from "../sim/world/random.ts";

/** After a start, what is measured of a program is what it needs. */
const SETTLED_MS = 120_000;
const MAX_MORE_FILES = 24;
const MAX_MORE_MEGABYTES = 96;
/** Pings of a pair that nothing comes near, which may be lost on a busy machine. */
const MAX_LOST = 0.15;
const SHOWN_SLOW = 6;
const DEVICE = "eth0";

interface Site {
  nat: Nat;
  behaviour: NatBehaviour;
  firewall: EgressFirewall;
}

interface Member {
  node: OverlayNode;
  /** Undefined: it has a public address. */
  site: Site | undefined;
  startedMs: number;
  /** Its daemon was ended by a disturbance. */
  isDown: boolean;
  readdressed: number;
}

/** What goes wrong, and how it is put right again. */
interface Disturbance {
  what: string;
  /** Names of hosts and routers, or "coord". */
  touches: string[];
  begin: () => Promise<unknown>;
  end?: () => Promise<unknown>;
}

/** Of a program since it settled. */
interface Usage {
  pid: number;
  first: { files: number; megabytes: number };
  last: { files: number; megabytes: number };
  minutes: number;
}

const LOOK = "ip -s link; ip addr; ip rule; ip route show table all; ss -tnpi; nft list ruleset";

class Fault extends Error {}

class Soak {
  readonly #overlay: Overlay;
  readonly #dice: Dice;
  readonly #patienceMs: number;
  readonly #members: Member[] = [];
  readonly #sites: Site[] = [];
  readonly #usages = new Map<string, Usage>();
  readonly #startMs = performance.now();
  #isCoordinatorDown = false;
  #coordinatorStartedMs = performance.now();
  #blocks = 0;

  constructor(overlay: Overlay, dice: Dice, patienceMs: number) {
    this.#overlay = overlay;
    this.#dice = dice;
    this.#patienceMs = patienceMs;
  }

  async join(dataPlane: string): Promise<void> {
    const { lab } = this.#overlay;
    const site = (name: string, behaviour: NatBehaviour = {}, firewall: EgressFirewall = {}) => {
      const ipv6 = name === "nat-six";
      const made = { nat: lab.nat(name, { ...behaviour, firewall, ipv6 }), behaviour, firewall };
      this.#sites.push(made);
      return made;
    };
    const home = site("nat-home");
    const six = site("nat-six");
    const places: [string, Site | undefined][] = [
      ["ann", home],
      ["ben", site("nat-hard", SYMMETRIC)],
      ["cat", site("nat-office", {}, NO_UDP)],
      ["dan", undefined],
      ["eve", six],
      ["fay", home],
      ["gil", site("nat-mobile", { ...SYMMETRIC, ports: "sequential" })],
    ];
    for (const [name, site] of places) {
      const host = site
        ? lab.host(name, { behind: site.nat, families: site === six ? "dual" : "ipv4" })
        : lab.publicHost(name, { families: "dual" });
      const node = this.#overlay.join(host, ["--data-plane", dataPlane, "-v"]);
      const startedMs = performance.now();
      this.#members.push({ node, site, startedMs, isDown: false, readdressed: 0 });
    }
    await this.#works(performance.now());
  }

  say(text: string): void {
    const seconds = Math.round((performance.now() - this.#startMs) / 1000);
    console.log(`${seconds} s: ${text}`);
  }

  /** Some disturbances, the time until all is well again, and all that has to hold then. */
  async episode(): Promise<void> {
    const dice = this.#dice;
    const count = 1 + Number(dice.chance(0.5)) + Number(dice.chance(0.25));
    const chosen: Disturbance[] = [];
    while (chosen.length < count) {
      const disturbance = this.#disturbance();
      const isTouched = (name: string) => chosen.some(({ touches }) => touches.includes(name));
      if (!disturbance.touches.some(isTouched)) chosen.push(disturbance);
    }
    const touched = new Set(chosen.flatMap(({ touches }) => touches));
    const lengths = chosen.map(({ end }) => end ? dice.pick([1, 3, 10, 20, 45]) * 1000 : 0);
    const offsets = chosen.map(() => dice.below(5_000));
    const doneAfterMs = Math.max(...chosen.map((_, i) => offsets[i]! + lengths[i]!));
    const watching = this.#watchUntouched(touched, doneAfterMs);
    await Promise.all(chosen.map(async ({ what, begin, end }, i) => {
      await sleep(offsets[i]!);
      this.say(end ? `${what}, for ${lengths[i]! / 1000} s` : what);
      await begin();
      if (!end) return;
      await sleep(lengths[i]!);
      await end();
    }));
    const endedMs = performance.now();
    await watching;
    await this.#works(endedMs);
    await this.#carriesData();
    this.#nothingEnded();
    this.#measure();
  }

  // --- what goes wrong

  #disturbance(): Disturbance {
    const dice = this.#dice;
    const kinds = [
      () => this.#coordinator(),
      () => this.#program(dice.pick(this.#members)),
      () => this.#network(dice.pick(this.#members)),
      () => this.#network(dice.pick(this.#members)),
      () => this.#ownLink(dice.pick(this.#members)),
      () => this.#router(dice.pick(this.#sites)),
    ];
    return dice.pick(kinds)();
  }

  #coordinator(): Disturbance {
    const { coord } = this.#overlay;
    const touches = ["coord"];
    const kill = async () => {
      this.#isCoordinatorDown = true;
      await this.#overlay.killCoordinator();
    };
    const start = async () => {
      await this.#overlay.startCoordinator();
      this.#isCoordinatorDown = false;
      this.#coordinatorStartedMs = performance.now();
    };
    const signal = (name: Deno.Signal) => async () => this.#overlay.coordinator.kill(name);
    return this.#dice.pick<Disturbance>([
      { what: "coordinator killed", touches, begin: kill, end: start },
      {
        what: "coordinator stops answering",
        touches,
        begin: signal("SIGSTOP"),
        end: signal("SIGCONT"),
      },
      {
        what: "connections to the coordinator are reset",
        touches,
        begin: () => shell(coord, "ss -K sport = 8443"),
      },
      {
        what: "the coordinator refuses connections",
        touches,
        ...this.#blocked(coord, "input", "tcp dport 8443 reject with tcp reset"),
      },
      {
        what: "the coordinator's network is gone",
        touches,
        ...this.#blocked(coord, "input", "drop"),
      },
    ]);
  }

  #program(member: Member): Disturbance {
    const { node } = member;
    const { name } = node.host;
    const touches = [name];
    const start = async () => {
      node.start();
      member.isDown = false;
      member.startedMs = performance.now();
    };
    const end = (how: Deno.Signal) => async () => {
      member.isDown = true;
      await node.stop(how);
    };
    const signal = (how: Deno.Signal) => async () => node.process.kill(how);
    return this.#dice.pick<Disturbance>([
      { what: `${name} killed`, touches, begin: end("SIGKILL"), end: start },
      { what: `${name} stopped`, touches, begin: end("SIGTERM"), end: start },
      {
        what: `${name} freezes`,
        touches,
        begin: signal("SIGSTOP"),
        end: signal("SIGCONT"),
      },
    ]);
  }

  #network(member: Member): Disturbance {
    const { node, site } = member;
    const { host } = node;
    const touches = [host.name];
    let routes = "";
    const keep = async () => {
      routes = await shell(host, `ip route show dev ${DEVICE} | grep -v 'proto kernel'`);
    };
    const restore = () =>
      shell(host, lines(routes).map((r) => `ip route replace ${r} dev ${DEVICE}`).join("\n"));
    const choices: Disturbance[] = [
      {
        what: `the card of ${host.name} is down`,
        touches,
        async begin() {
          await keep();
          await shell(host, `ip link set ${DEVICE} down`);
        },
        async end() {
          await shell(host, `ip link set ${DEVICE} up`);
          await restore();
        },
      },
      {
        what: `${host.name} has no default route`,
        touches,
        async begin() {
          await keep();
          await shell(
            host,
            `ip route flush dev ${DEVICE} proto static; ip route del default || true`,
          );
        },
        end: restore,
      },
      {
        what: `UDP is blocked at the card of ${host.name}`,
        touches,
        ...this.#blocked(host, ["input", "output"], `meta l4proto udp meta iifkind != tun drop`),
      },
      {
        what: `a firewall lets nothing in to ${host.name}`,
        touches,
        ...this.#blocked(host, "input", `iifname ${DEVICE} drop`),
      },
      {
        what: `connections of ${host.name} to the coordinator are reset`,
        touches,
        begin: () => shell(host, "ss -K dport = 8443"),
      },
      {
        what: `the rules of ${host.name} are flushed`,
        touches,
        begin: () => shell(host, "nft flush ruleset"),
      },
      {
        what: `the way of ${host.name} carries 1280 bytes`,
        touches,
        ...this.#narrow(site ? site.nat.name : host.name),
      },
    ];
    if (site) {
      const index = this.#members.indexOf(member);
      choices.push({
        what: `${host.name} gets another address`,
        touches,
        begin: () => {
          const last = 20 + 30 * index + (member.readdressed++ % 30);
          return node.moveTo(site.nat.prefix.ip.replace(/\d+$/, String(last)));
        },
      });
      const other = this.#dice.pick(this.#sites.filter((each) => each !== site));
      const move = {
        what: `${host.name} moves to ${other.nat.name}`,
        touches,
        begin: async () => {
          host.moveTo(other.nat);
          member.site = other;
        },
      };
      choices.push(move, move);
    }
    return this.#dice.pick(choices);
  }

  #ownLink({ node: { host } }: Member): Disturbance {
    const each = (command: string) => async () => {
      const links = lines(await shell(host, "ls /sys/class/net")).filter((l) => /^gretun/.test(l));
      if (links.length > 0) await shell(host, `${command} ${this.#dice.pick(links)}`);
    };
    const touches = [host.name];
    return this.#dice.pick<Disturbance>([
      { what: `${host.name}: addr flush`, touches, begin: each("ip addr flush dev") },
      { what: `${host.name}: link del`, touches, begin: each("ip link del") },
      { what: `${host.name}: route flush`, touches, begin: each("ip route flush dev") },
      {
        what: `${host.name}: link down`,
        touches,
        begin: each("f() { ip link set $1 down; }; f"),
      },
      {
        what: `${host.name}: mtu 576`,
        touches,
        begin: each("f() { ip link set $1 mtu 576; }; f"),
      },
    ]);
  }

  #router({ nat, behaviour, firewall }: Site): Disturbance {
    const touches = this.#members.filter(({ site }) => site?.nat === nat)
      .map(({ node }) => node.host.name);
    touches.push(nat.name);
    return this.#dice.pick<Disturbance>([
      {
        what: `${nat.name} restarts`,
        touches,
        begin: async () => nat.restart(behaviour, firewall),
      },
      {
        what: `${nat.name} maps ports at random`,
        touches,
        begin: async () => nat.restart({ ...behaviour, ports: "random" }, firewall),
        end: async () => nat.restart(behaviour, firewall),
      },
      {
        what: `${nat.name} lets no UDP through`,
        touches,
        ...this.#blocked(nat, "forward", "meta l4proto udp drop"),
      },
      {
        what: `${nat.name} lets nothing through`,
        touches,
        ...this.#blocked(nat, "forward", "drop"),
      },
    ]);
  }

  /** By a table of its own, so that several may be there. */
  #blocked(
    host: Shell,
    hooks: string | string[],
    rule: string,
  ): Pick<Disturbance, "begin" | "end"> {
    const table = `inet blocked${this.#blocks++}`;
    const chains = [hooks].flat().map((hook) => {
      const matches = hook === "output" ? rule.replace("iifkind", "oifkind") : rule;
      return `chain ${hook} { type filter hook ${hook} priority -10; ${matches}; }`;
    });
    return {
      begin: () => shell(host, `nft 'table ${table} { ${chains.join("\n")} }'`),
      end: () => shell(host, `nft delete table ${table}`),
    };
  }

  /** A port of the public network. What is larger disappears there, both ways. */
  #narrow(port: string): Pick<Disturbance, "begin" | "end"> {
    const set = (mtu: number) => () =>
      shell(this.#overlay.lab.internet, `ip link set ${port} mtu ${mtu}`);
    return { begin: set(1280), end: set(1500) };
  }

  // --- what has to hold

  /** Pairs with a direct path and no disturbance at their hosts are not disturbed by others'. */
  async #watchUntouched(touched: ReadonlySet<string>, durationMs: number): Promise<void> {
    const untouched = this.#members.filter(({ node, site }) =>
      !touched.has(node.host.name) && !(site && touched.has(site.nat.name))
    );
    const seconds = Math.ceil(durationMs / 1000);
    await Promise.all(
      pairs(untouched).map(async ([a, b]) => {
        const [report, ip] = await Promise.all([a.node.report(), b.node.tunnelIp()]);
        const peer = report.peers.find(({ name }) => name === b.node.host.name);
        if (peer?.state !== "direct" || peer.path?.startsWith("relay")) return;
        const args = ["-n", "-q", "-i", "0.5", "-w", String(seconds), ip];
        const { stdout } = await a.node.host.run("ping", args);
        const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(stdout)!;
        const lost = 1 - Number(received) / Number(sent);
        if (lost <= MAX_LOST) return;
        throw new Fault(
          `${names(a, b)}: ${received} of ${sent} pings answered, although nothing touched them`,
        );
      }),
    );
  }

  /** Waits until all pings are answered, and looks at what is said meanwhile and then. */
  async #works(sinceMs: number): Promise<void> {
    let missing: string[] = [];
    const slow: string[] = [];
    await Promise.all(
      pairs(this.#members).map(async ([a, b]) => {
        const answered = async (from: Member, to: Member) => {
          const ip = await to.node.tunnelIp();
          const args = ["-n", "-c", "1", "-W", "1", ip];
          while ((await from.node.host.run("ping", args)).code !== 0) {
            if (performance.now() - sinceMs > this.#patienceMs) {
              missing.push(`${from.node.host.name} to ${to.node.host.name}`);
              return;
            }
            await sleep(200);
          }
        };
        await Promise.all([answered(a, b), answered(b, a)]);
        const seconds = Math.round((performance.now() - sinceMs) / 100) / 10;
        if (seconds > 8) slow.push(`${names(a, b)} ${seconds}`);
      }),
    );
    const seconds = Math.round((performance.now() - sinceMs) / 100) / 10;
    const shown = slow.slice(0, SHOWN_SLOW).join(", ");
    const late = slow.length > 0 ? `; ${slow.length} pairs after 8 s: ${shown}` : "";
    if (missing.length > 0) {
      missing = [...new Set(missing)];
      throw new Fault(`${seconds} s after it ended no way: ${missing.join(", ")}`);
    }
    this.say(`all pings answered ${seconds} s after it ended${late}`);
    await Promise.all(this.#members.map((member) => this.#isTrue(member, sinceMs)));
  }

  /** Whether `status` says what pings do. The first ping may have gone by before its daemon knew of the way. */
  async #isTrue({ node }: Member, sinceMs: number): Promise<void> {
    for (;;) {
      const [lie] = lies(await node.report(), this.#members);
      if (!lie) return;
      if (performance.now() - sinceMs > this.#patienceMs) {
        throw new Fault(`${node.host.name} says of a peer that answers: ${lie}`);
      }
      await sleep(200);
    }
  }

  async #carriesData(): Promise<void> {
    for (const [a, b] of pairs(this.#members)) {
      const way = { from: a.node.host, to: b.node.host, ip: await b.node.tunnelIp() };
      try {
        await transfer(`${names(a, b)} carry 1 MB`, way);
      } catch (error) {
        throw new Fault(errorText(error));
      }
    }
  }

  #nothingEnded(): void {
    for (const { node, isDown } of this.#members) {
      if (!isDown && !isRunning(node.process.pid)) throw new Fault(`${node.host.name} ended`);
    }
    if (!this.#isCoordinatorDown && !isRunning(this.#overlay.coordinator.pid)) {
      throw new Fault("the coordinator ended");
    }
  }

  #measure(): void {
    const nowMs = performance.now();
    const programs = [
      ...this.#members.map(({ node, startedMs }) => ({
        name: node.host.name,
        pid: node.process.pid,
        startedMs,
      })),
      {
        name: "coordinator",
        pid: this.#overlay.coordinator.pid,
        startedMs: this.#coordinatorStartedMs,
      },
    ];
    for (const { name, pid, startedMs } of programs) {
      if (nowMs - startedMs < SETTLED_MS) continue;
      const now = usage(pid);
      const before = this.#usages.get(name);
      const first = before?.pid === pid ? before.first : now;
      const minutes = Math.round((nowMs - startedMs) / 60_000);
      this.#usages.set(name, { pid, first, last: now, minutes });
      if (now.files > first.files + MAX_MORE_FILES) {
        throw new Fault(`${name} has ${now.files} files open, and had ${first.files}`);
      }
      if (now.megabytes > first.megabytes + MAX_MORE_MEGABYTES) {
        throw new Fault(`${name} has ${now.megabytes} MB, and had ${first.megabytes}`);
      }
    }
  }

  printUsages(): void {
    for (const [name, { first, last, minutes }] of this.#usages) {
      console.log(
        `${name}, up ${minutes} min: files ${first.files} -> ${last.files}, ` +
          `MB ${first.megabytes} -> ${last.megabytes}`,
      );
    }
  }

  /** To tell later what was logged since. */
  marks(): () => string {
    const logs = () => [
      { name: "coordinator", log: this.#overlay.coordinatorLog },
      ...this.#members.map(({ node }) => ({ name: node.host.name, log: node.log })),
    ];
    const lengths = logs().map(({ log }) => log.length);
    return () =>
      logs().map(({ name, log }, i) => `--- ${name}\n${log.slice(lengths[i])}`).join("\n");
  }

  /** How it is everywhere now. */
  async state(): Promise<string> {
    const states = this.#members.map(async ({ node }) => {
      const report = await node.report().catch(errorText);
      return `--- status of ${node.host.name}\n${JSON.stringify(report, null, 1)}\n` +
        await shell(node.host, LOOK);
    });
    return (await Promise.all(states)).join("\n");
  }
}

interface Shell {
  run(command: string, args: readonly string[]): Promise<{ stdout: string; stderr: string }>;
}

/** What it prints. Failures are of no interest: what is to be disturbed may be gone. */
async function shell(host: Shell, commands: string): Promise<string> {
  return (await host.run("sh", ["-c", commands])).stdout;
}

const lines = (text: string) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function pairs<T>(all: readonly T[]): [T, T][] {
  return all.flatMap((a, i) => all.slice(i + 1).map((b): [T, T] => [a, b]));
}

const names = (a: Member, b: Member) => `${a.node.host.name} and ${b.node.host.name}`;

/** What it says of peers of which all pings have just been answered. */
function lies({ state, peers }: DaemonReport, members: readonly Member[]): string[] {
  if (state !== "running") return [state];
  return members.flatMap(({ node: { host } }) => {
    const peer = peers.find(({ name }) => name === host.name);
    if (!peer) return [];
    const isRelay = peer.path?.startsWith("relay") ?? false;
    const isTrue = !peer.offline && (isRelay ? "relay" : "direct") === peer.state;
    return isTrue ? [] : [JSON.stringify(peer)];
  });
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return false;
  }
}

function usage(pid: number): { files: number; megabytes: number } {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const files = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
  return { files, megabytes: Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024) };
}

const flags = parseArgs(Deno.args, {
  string: ["minutes", "seed", "data-plane", "patience"],
  default: {
    minutes: "10",
    seed: String(crypto.getRandomValues(new Uint32Array(1))[0]),
    "data-plane": "auto",
    patience: "30",
  },
});
const endMs = performance.now() + Number(flags.minutes) * 60_000;
console.log(`seed ${flags.seed}`);
let isWell = true;
{
  const coordArgs = ["--stun-advertise", "203.0.113.2:3478"];
  await using overlay = await Overlay.start({ keepState: true, ipv6: true, coordArgs });
  const soak = new Soak(overlay, new Dice(Number(flags.seed)), Number(flags.patience) * 1000);
  let marks = soak.marks();
  try {
    await soak.join(flags["data-plane"]);
    while (performance.now() < endMs) {
      marks = soak.marks();
      await soak.episode();
    }
  } catch (error) {
    console.log(marks());
    console.log(await soak.state());
    console.log(error instanceof Fault ? `FAULT: ${error.message}` : error);
    isWell = false;
  }
  soak.printUsages();
}
Deno.exit(isWell ? 0 : 1);
