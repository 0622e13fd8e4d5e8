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

const HUB_ADDRESS = "10.90.0.1";
const DEVICE = "eth0";
/** Programs that have just started take what they need. */
const SETTLED_MS = 120_000;
const MAX_MORE_FILES = 16;
const MAX_MORE_MEGABYTES = 96;

type Daemon = Pick<SpokeDaemon, "host" | "process" | "log" | "start" | "stop">;

interface Member {
  name: string;
  ip: string;
  spoke: SpokeDaemon;
  scheme: Scheme;
  nat: Nat | undefined;
}

interface Disturbance {
  what: string;
  /** Names of hosts. */
  touches: string[];
  begin: () => unknown;
  end?: () => unknown;
}

interface Usage {
  pid: number;
  sinceMs: number;
  first?: { files: number; megabytes: number };
}

class Fault extends Error {}

class Soak {
  readonly #lab: HubLab;
  readonly #dice: Dice;
  readonly #patienceMs: number;
  readonly #members: Member[] = [];
  readonly #nats: Nat[] = [];
  readonly #usages = new Map<string, Usage>();
  readonly #startMs = performance.now();
  #blocks = 0;

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

  say(text: string): void {
    console.log(`${Math.round((performance.now() - this.#startMs) / 1000)} s: ${text}`);
  }

  async episode(): Promise<void> {
    const dice = this.#dice;
    const count = 1 + Number(dice.chance(0.5)) + Number(dice.chance(0.25));
    const chosen: Disturbance[] = [];
    while (chosen.length < count) {
      const disturbance = this.#disturbance();
      const isTouched = (name: string) => chosen.some(({ touches }) => touches.includes(name));
      if (!disturbance.touches.some(isTouched)) chosen.push(disturbance);
    }
    await Promise.all(chosen.map(async ({ what, begin, end }) => {
      const lastsMs = dice.pick([1, 3, 10, 20, 45]) * 1000;
      await sleep(dice.below(5_000));
      this.say(end ? `${what}, for ${lastsMs / 1000} s` : what);
      await begin();
      if (!end) return;
      await sleep(lastsMs);
      await end();
    }));
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
    const { name } = daemon.host;
    const touches = [name];
    const end = () => daemon.start();
    return this.#dice.pick<Disturbance>([
      { what: `${name} killed`, touches, begin: () => daemon.stop("SIGKILL"), end },
      { what: `${name} stopped`, touches, begin: () => daemon.stop("SIGTERM"), end },
      {
        what: `${name} freezes`,
        touches,
        begin: () => daemon.process.kill("SIGSTOP"),
        end: () => daemon.process.kill("SIGCONT"),
      },
    ]);
  }

  #ownLink({ host }: Daemon): Disturbance {
    const [what, command] = this.#dice.pick([
      ["addr flush", "ip addr flush dev $1"],
      ["link del", "ip link del $1"],
      ["route flush", "ip route flush dev $1"],
      ["link down", "ip link set $1 down"],
      ["mtu 576", "ip link set $1 mtu 576"],
    ]);
    const links = "ls /sys/class/net | grep -E '^(hub|spoke)[0-9]'";
    const begin = () => shell(host, `f() { ${command}; }; for l in $(${links}); do f $l; done`);
    return { what: `${host.name}: ${what}`, touches: [host.name], begin };
  }

  #network({ host }: Daemon): Disturbance {
    const touches = [host.name];
    let routes = "";
    return this.#dice.pick<Disturbance>([
      {
        what: `the card of ${host.name} is down`,
        touches,
        async begin() {
          routes = await shell(host, `ip route show dev ${DEVICE} | grep -v 'proto kernel'`);
          await shell(host, `ip link set ${DEVICE} down`);
        },
        async end() {
          await shell(host, `ip link set ${DEVICE} up`);
          for (const route of routes.split("\n").filter(Boolean)) {
            await shell(host, `ip route replace ${route} dev ${DEVICE}`);
          }
        },
      },
      { what: `nothing gets in to ${host.name}`, touches, ...this.#blocked(host, "input") },
      {
        what: `the rules of ${host.name} are flushed`,
        touches,
        begin: () => shell(host, "nft flush ruleset"),
      },
    ]);
  }

  #router(nat: Nat): Disturbance {
    const touches = this.#members.filter((member) => member.nat === nat).map(({ name }) => name);
    const behaviour = nat.name === "nat-hard" ? SYMMETRIC : {};
    return this.#dice.pick<Disturbance>([
      {
        what: `${nat.name} restarts and chooses other ports`,
        touches,
        begin: () => nat.restart({ ...behaviour, ports: "random" }),
      },
      { what: `${nat.name} lets nothing through`, touches, ...this.#blocked(nat, "forward") },
    ]);
  }

  #move(member: Member): Disturbance {
    const others = this.#nats.filter((nat) => nat !== member.nat);
    const nat = this.#dice.pick(others);
    const begin = () => {
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
      begin: () => this.#lab.removeClient(name),
      end: () => this.#lab.clientFile(name, `${scheme.file}address ${ip}\n`),
    };
  }

  #blocked(host: Shell, hook: string): Pick<Disturbance, "begin" | "end"> {
    const table = `inet blocked${this.#blocks++}`;
    const chain = `chain c { type filter hook ${hook} priority -10; iifname != lo drop; }`;
    return {
      begin: () => shell(host, `nft 'table ${table} { ${chain} }'`),
      end: () => shell(host, `nft delete table ${table}`),
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
    this.say(
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
    for (const { host: { name }, process: { pid } } of this.#daemons()) {
      const now = usageOf(pid);
      if (!now) throw new Fault(`${name} has ended`);
      let usage = this.#usages.get(name);
      if (usage?.pid !== pid) {
        usage = { pid, sinceMs: performance.now() };
        this.#usages.set(name, usage);
      }
      if (performance.now() - usage.sinceMs < SETTLED_MS) continue;
      const first = usage.first ??= now;
      const hasGrown = now.files > first.files + MAX_MORE_FILES ||
        now.megabytes > first.megabytes + MAX_MORE_MEGABYTES;
      if (hasGrown) {
        throw new Fault(`${name} has grown: ${JSON.stringify(first)} to ${JSON.stringify(now)}`);
      }
    }
  }

  #daemons(): Daemon[] {
    return [this.#lab.hub, ...this.#members.map(({ spoke }) => spoke)];
  }

  /** To tell later what was logged since. */
  marks(): () => string {
    const lengths = this.#daemons().map(({ log }) => log.length);
    return () =>
      this.#daemons().map(({ host, log }, i) => `--- ${host.name}\n${log.slice(lengths[i])}`)
        .join("\n");
  }
}

interface Shell {
  run(command: string, args: readonly string[]): Promise<{ stdout: string }>;
}

/** What it prints. Failures are of no interest: what is to be disturbed may be gone. */
async function shell(host: Shell, commands: string): Promise<string> {
  return (await host.run("sh", ["-c", commands])).stdout;
}

/** Undefined: it does not run. */
function usageOf(pid: number): { files: number; megabytes: number } | undefined {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const files = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
    return { files, megabytes: Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024) };
  } catch {
    return undefined;
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
const endMs = performance.now() + Number(flags.minutes) * 60_000;
console.log(`seed ${flags.seed}`);
let isWell = true;
{
  await using lab = new HubLab();
  const soak = new Soak(lab, new Dice(Number(flags.seed)), Number(flags.patience) * 1000);
  let marks = () => "";
  try {
    await soak.join();
    while (performance.now() < endMs) {
      marks = soak.marks();
      await soak.episode();
    }
  } catch (error) {
    console.log(marks());
    console.log(error instanceof Fault ? `FAULT: ${error.message}` : error);
    isWell = false;
  }
}
Deno.exit(isWell ? 0 : 1);
