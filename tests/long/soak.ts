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
 * As root, after ./compile.sh; what takes longer on a busy machine is allowed for by --patience. --nodes 4
 * takes the first four of them; in an emulated machine it is the kernel plane's soak:
 *
 *     tests/vm/boot.sh linux-image-cloud-amd64 '$DENO run -A tests/long/soak.ts --nodes 4 --data-plane fou'
 */
import { parseArgs } from "@std/cli/parse-args";
import { errorText } from "../../lib/errors.ts";
import type { DaemonReport } from "../../lib/daemon/control.ts";
import { type EgressFirewall, type Nat, type NatBehaviour, NO_UDP, SYMMETRIC } from "../lab/mod.ts";
import { Overlay, type OverlayNode, sleep, transfer } from "../overlay.ts";
import { Dice } from "../sim/world/random.ts";
import {
  blocked,
  carryOut,
  checkRuns,
  DEVICE,
  type Disturbance,
  Fault,
  markLogs,
  ofCard,
  ofOwnLink,
  ofProgram,
  plan,
  sayer,
  shell,
  soak,
  Usages,
} from "./disturbances.ts";

/** Pings of a pair that nothing comes near, which may be lost on a busy machine. */
const MAX_LOST = 0.15;
const SHOWN_SLOW = 6;

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

const LOOK = "ip -s link; ip addr; ip rule; ip route show table all; ss -tnpi; nft list ruleset";

class Soak {
  readonly #overlay: Overlay;
  readonly #dice: Dice;
  readonly #patienceMs: number;
  readonly #members: Member[] = [];
  readonly #sites: Site[] = [];
  readonly #usages = new Usages();
  readonly #dataPlane: string;
  readonly #nodes: number;
  readonly #say = sayer();
  #isCoordinatorDown = false;
  #coordinatorStartedMs = performance.now();

  constructor(
    overlay: Overlay,
    options: { dice: Dice; patienceMs: number; dataPlane: string; nodes: number },
  ) {
    this.#overlay = overlay;
    this.#dice = options.dice;
    this.#patienceMs = options.patienceMs;
    this.#dataPlane = options.dataPlane;
    this.#nodes = options.nodes;
  }

  async join(): Promise<void> {
    const { lab } = this.#overlay;
    const site = (name: string, behaviour: NatBehaviour = {}, firewall: EgressFirewall = {}) => {
      const ipv6 = name === "nat-six";
      const made = { nat: lab.nat(name, { ...behaviour, firewall, ipv6 }), behaviour, firewall };
      this.#sites.push(made);
      return made;
    };
    let home: Site | undefined;
    const atHome = () => home ??= site("nat-home");
    const places: [string, () => Site | undefined][] = [
      ["ann", atHome],
      ["ben", () => site("nat-hard", SYMMETRIC)],
      ["cat", () => site("nat-office", {}, NO_UDP)],
      ["dan", () => undefined],
      ["eve", () => site("nat-six")],
      ["fay", atHome],
      ["gil", () => site("nat-mobile", { ...SYMMETRIC, ports: "sequential" })],
    ];
    for (const [name, siteOf] of places.slice(0, this.#nodes)) {
      const site = siteOf();
      const families = name === "eve" || !site ? "dual" : "ipv4";
      const host = site
        ? lab.host(name, { behind: site.nat, families })
        : lab.publicHost(name, { families });
      const node = this.#overlay.join(host, ["--data-plane", this.#dataPlane, "-v"]);
      const startedMs = performance.now();
      this.#members.push({ node, site, startedMs, isDown: false, readdressed: 0 });
    }
    await this.#works(performance.now());
  }

  /** Some disturbances, the time until all is well again, and all that has to hold then. */
  async episode(): Promise<void> {
    const planned = plan(this.#dice, () => this.#disturbance());
    const touched = new Set(planned.flatMap(({ touches }) => touches));
    const doneAfterMs = Math.max(...planned.map(({ offsetMs, lengthMs }) => offsetMs + lengthMs));
    const watching = this.#watchUntouched(touched, doneAfterMs);
    await carryOut(planned, this.#say);
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
        ...blocked(coord, "input", "tcp dport 8443 reject with tcp reset"),
      },
      {
        what: "the coordinator's network is gone",
        touches,
        ...blocked(coord, "input", "drop"),
      },
    ]);
  }

  #program(member: Member): Disturbance {
    const { node } = member;
    return this.#dice.pick(ofProgram({
      name: node.host.name,
      async start() {
        node.start();
        member.isDown = false;
        member.startedMs = performance.now();
      },
      async stop(how) {
        member.isDown = true;
        await node.stop(how);
      },
      signal: (how) => node.process.kill(how),
    }));
  }

  #network(member: Member): Disturbance {
    const { node, site } = member;
    const { host } = node;
    const touches = [host.name];
    const card = ofCard(host);
    const choices: Disturbance[] = [
      card.down,
      card.noDefaultRoute,
      {
        what: `UDP is blocked at the card of ${host.name}`,
        touches,
        ...blocked(host, ["input", "output"], `meta l4proto udp meta iifkind != tun drop`),
      },
      {
        what: `a firewall lets nothing in to ${host.name}`,
        touches,
        ...blocked(host, "input", `iifname ${DEVICE} drop`),
      },
      {
        what: `connections of ${host.name} to the coordinator are reset`,
        touches,
        begin: () => shell(host, "ss -K dport = 8443"),
      },
      card.noRules,
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
    return this.#dice.pick(ofOwnLink(host, /^gretun/, this.#dice));
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
        ...blocked(nat, "forward", "meta l4proto udp drop"),
      },
      {
        what: `${nat.name} lets nothing through`,
        touches,
        ...blocked(nat, "forward", "drop"),
      },
    ]);
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
    this.#say(`all pings answered ${seconds} s after it ended${late}`);
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
      if (!isDown) checkRuns({ name: node.host.name, pid: node.process.pid });
    }
    if (!this.#isCoordinatorDown) {
      checkRuns({ name: "coordinator", pid: this.#overlay.coordinator.pid });
    }
  }

  #measure(): void {
    this.#usages.measure([
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
    ]);
  }

  printUsages(): void {
    this.#usages.print();
  }

  /** To tell later what was logged since. */
  marks(): () => string {
    return markLogs(() => [
      { name: "coordinator", log: this.#overlay.coordinatorLog },
      ...this.#members.map(({ node }) => ({ name: node.host.name, log: node.log })),
    ]);
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

const flags = parseArgs(Deno.args, {
  string: ["minutes", "seed", "data-plane", "patience", "nodes"],
  default: {
    minutes: "10",
    seed: String(crypto.getRandomValues(new Uint32Array(1))[0]),
    "data-plane": "auto",
    patience: "30",
    nodes: "7",
  },
});
console.log(`seed ${flags.seed}`);
let isWell: boolean;
{
  const coordArgs = ["--stun-advertise", "203.0.113.2:3478"];
  await using overlay = await Overlay.start({ keepState: true, ipv6: true, coordArgs });
  const soaked = new Soak(overlay, {
    dice: new Dice(Number(flags.seed)),
    patienceMs: Number(flags.patience) * 1000,
    dataPlane: flags["data-plane"],
    nodes: Number(flags.nodes),
  });
  isWell = await soak(Number(flags.minutes), soaked);
  soaked.printUsages();
}
Deno.exit(isWell ? 0 : 1);
