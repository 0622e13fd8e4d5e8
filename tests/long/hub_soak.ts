/**
 * A hub and four spokes in a lab, whose hosts, routers, programs, links and files of clients are disturbed
 * at random, several at a time. Once all of it is over, hub and spokes reach each other, 1 MB goes both
 * ways and arrives as it was sent, reports say what pings say, no program has ended, and none of them grows.
 *
 *     deno task hub-soak --minutes 60 --seed 7
 *
 * Ends at the first fault, with exit code 1 and what all programs logged since the disturbance began.
 * As root, after ./compile.sh; what takes longer on a busy machine is allowed for by --patience.
 */
import { parseArgs } from "@std/cli/parse-args";
import { errorText } from "../../lib/errors.ts";
import { HubLab, type Scheme, type SpokeDaemon } from "../hub_lab.ts";
import { type Nat, SYMMETRIC } from "../lab/mod.ts";
import { sleep, transfer } from "../overlay.ts";
import { Dice } from "../sim/world/random.ts";
import {
  blocked,
  carryOut,
  checkRuns,
  type Disturbance,
  Fault,
  markLogs,
  ofCard,
  ofOwnLink,
  ofProgram,
  plan,
  sayer,
  soak,
  Usages,
} from "./disturbances.ts";

const HUB_ADDRESS = "10.90.0.1";
const NOTHING_IN = "iifname != lo drop";
type Daemon = Pick<SpokeDaemon, "host" | "process" | "log" | "start" | "stop">;

interface Member {
  name: string;
  ip: string;
  spoke: SpokeDaemon;
  scheme: Scheme;
  nat: Nat | undefined;
}

class Soak {
  readonly #lab: HubLab;
  readonly #dice: Dice;
  readonly #patienceMs: number;
  readonly #members: Member[] = [];
  readonly #nats: Nat[] = [];
  readonly #usages = new Usages();
  /** When each last started. */
  readonly #startedMs = new Map<Daemon, number>();
  readonly #joinedMs = performance.now();
  readonly #say = sayer();

  constructor(lab: HubLab, dice: Dice, patienceMs: number) {
    this.#lab = lab;
    this.#dice = dice;
    this.#patienceMs = patienceMs;
  }

  async join(): Promise<void> {
    const { lab } = this.#lab;
    await this.#lab.startHub(["--address", HUB_ADDRESS]);
    const nat = (name: string, behaviour = {}) => {
      const made = lab.nat(name, behaviour);
      this.#nats.push(made);
      return made;
    };
    const home = nat("nat-home");
    const places: [string, Nat | undefined][] = [
      ["ann", home],
      ["ben", nat("nat-hard", SYMMETRIC)],
      ["cat", home],
      ["dan", undefined],
    ];
    for (const [i, [name, behind]] of places.entries()) {
      const host = behind ? lab.host(name, { behind }) : lab.publicHost(name);
      const scheme = this.#lab.keyScheme(name);
      const ip = `10.90.0.${2 + i}`;
      const spoke = this.#lab.spoke(name, host, { scheme, file: `address ${ip}\n` });
      this.#members.push({ name, ip, spoke, scheme, nat: behind });
    }
    await this.#works(performance.now());
  }

  async episode(): Promise<void> {
    await carryOut(plan(this.#dice, () => this.#disturbance()), this.#say);
    await this.#works(performance.now());
    await this.#carriesData();
    this.#nothingEndedOrGrew();
  }

  // --- what goes wrong

  #disturbance(): Disturbance {
    const dice = this.#dice;
    const member = dice.pick(this.#members);
    const daemon = dice.chance(0.4) ? this.#lab.hub : member.spoke;
    return dice.pick([
      () => this.#program(daemon),
      () => this.#ownLink(daemon),
      () => this.#network(daemon),
      () => this.#router(dice.pick(this.#nats)),
      () => this.#move(member),
      () => this.#client(member),
    ])();
  }

  #program(daemon: Daemon): Disturbance {
    return this.#dice.pick(ofProgram({
      name: daemon.host.name,
      start: async () => {
        daemon.start();
        this.#startedMs.set(daemon, performance.now());
      },
      stop: (how) => daemon.stop(how),
      signal: (how) => daemon.process.kill(how),
    }));
  }

  #ownLink({ host }: Daemon): Disturbance {
    return this.#dice.pick(ofOwnLink(host, /^(hub|spoke)\d/, this.#dice));
  }

  #network({ host }: Daemon): Disturbance {
    const { down, noRules } = ofCard(host);
    const what = `nothing gets in to ${host.name}`;
    return this.#dice.pick([
      down,
      { what, touches: [host.name], ...blocked(host, "input", NOTHING_IN) },
      noRules,
    ]);
  }

  #router(nat: Nat): Disturbance {
    const touches = this.#members.filter((member) => member.nat === nat).map(({ name }) => name);
    const behaviour = nat.name === "nat-hard" ? SYMMETRIC : {};
    return this.#dice.pick<Disturbance>([
      {
        what: `${nat.name} restarts and chooses other ports`,
        touches,
        begin: async () => nat.restart({ ...behaviour, ports: "random" }),
      },
      { what: `${nat.name} lets nothing through`, touches, ...blocked(nat, "forward", NOTHING_IN) },
    ]);
  }

  #move(member: Member): Disturbance {
    const others = this.#nats.filter((nat) => nat !== member.nat);
    const nat = this.#dice.pick(others);
    const begin = async () => {
      member.spoke.host.moveTo(nat);
      member.nat = nat;
    };
    const touches = [member.name, nat.name];
    if (!member.nat) return this.#client(member);
    return { what: `${member.name} moves to ${nat.name}`, touches, begin };
  }

  #client({ name, ip, scheme }: Member): Disturbance {
    return {
      what: `the hub does not know ${name} any more`,
      touches: [name],
      begin: async () => this.#lab.removeClient(name),
      end: async () => this.#lab.clientFile(name, `${scheme.file}address ${ip}\n`),
    };
  }

  // --- what has to hold

  async #works(sinceMs: number): Promise<void> {
    const isLate = () => performance.now() - sinceMs > this.#patienceMs;
    const answered = async (from: Daemon, to: string, what: string) => {
      while ((await from.host.run("ping", ["-n", "-c", "1", "-W", "1", to])).code !== 0) {
        if (isLate()) throw new Fault(`no way: ${what}`);
        await sleep(200);
      }
    };
    await Promise.all(this.#members.flatMap(({ name, ip, spoke }) => [
      answered(spoke, HUB_ADDRESS, `${name} to the hub`),
      answered(this.#lab.hub, ip, `the hub to ${name}`),
    ]));
    this.#say(
      `all pings answered ${((performance.now() - sinceMs) / 1000).toFixed(1)} s after it ended`,
    );
    for (const { name, spoke } of this.#members) {
      const says = async () => [(await this.#lab.client(name)).state, (await spoke.report()).state];
      for (
        let states = await says();
        states.some((state) => state !== "up");
        states = await says()
      ) {
        if (isLate()) throw new Fault(`hub and spoke say of ${name}, which answers: ${states}`);
        await sleep(200);
      }
    }
  }

  async #carriesData(): Promise<void> {
    for (const { name, spoke } of this.#members) {
      const way = { from: spoke.host, to: this.#lab.host, ip: HUB_ADDRESS };
      await transfer(`${name} and the hub carry 1 MB`, way).catch((error) => {
        throw new Fault(errorText(error));
      });
    }
  }

  #nothingEndedOrGrew(): void {
    const running = this.#daemons().map((daemon) => ({
      name: daemon.host.name,
      pid: daemon.process.pid,
      startedMs: this.#startedMs.get(daemon) ?? this.#joinedMs,
    }));
    for (const one of running) checkRuns(one);
    this.#usages.measure(running);
  }

  printUsages(): void {
    this.#usages.print();
  }

  #daemons(): Daemon[] {
    return [this.#lab.hub, ...this.#members.map(({ spoke }) => spoke)];
  }

  /** To tell later what was logged since. */
  marks(): () => string {
    // The hub is not there before it is started.
    return markLogs(() =>
      this.#daemons().filter(Boolean).map(({ host, log }) => ({ name: host.name, log }))
    );
  }

  async state(): Promise<string> {
    const hub = await this.#lab.report().catch(errorText);
    const spokes = this.#members.map(({ spoke }) => spoke.report().catch(errorText));
    return JSON.stringify([hub, ...await Promise.all(spokes)], null, 1);
  }
}

const flags = parseArgs(Deno.args, {
  string: ["minutes", "seed", "patience"],
  default: {
    minutes: "10",
    seed: String(crypto.getRandomValues(new Uint32Array(1))[0]),
    patience: "30",
  },
});
console.log(`seed ${flags.seed}`);
let isWell: boolean;
{
  await using lab = new HubLab();
  const soaked = new Soak(lab, new Dice(Number(flags.seed)), Number(flags.patience) * 1000);
  isWell = await soak(Number(flags.minutes), soaked);
  soaked.printUsages();
}
Deno.exit(isWell ? 0 : 1);
