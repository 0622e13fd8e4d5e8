/** What goes wrong around programs in a lab, in soaks: several things at a time, at random. */
import { sleep } from "../overlay.ts";
import type { Dice } from "../sim/world/random.ts";

/** Programs that have just started take what they need. */
const SETTLED_MS = 120_000;
const MAX_MORE_FILES = 24;
const MAX_MORE_MEGABYTES = 96;
export const DEVICE = "eth0";

/** Something that must not be so. */
export class Fault extends Error {}

/** What goes wrong, and how it is put right again. */
export interface Disturbance {
  what: string;
  /** Names of hosts and routers, or "coord". */
  touches: string[];
  begin: () => Promise<unknown>;
  end?: () => Promise<unknown>;
}

/** When one begins, and how long it lasts. */
export interface Planned extends Disturbance {
  offsetMs: number;
  lengthMs: number;
}

/** One to three that touch nothing in common. */
export function plan(dice: Dice, disturbance: () => Disturbance): Planned[] {
  const count = 1 + Number(dice.chance(0.5)) + Number(dice.chance(0.25));
  const chosen: Disturbance[] = [];
  while (chosen.length < count) {
    const one = disturbance();
    const isTouched = (name: string) => chosen.some(({ touches }) => touches.includes(name));
    if (!one.touches.some(isTouched)) chosen.push(one);
  }
  const lengths = chosen.map(({ end }) => end ? dice.pick([1, 3, 10, 20, 45]) * 1000 : 0);
  return chosen.map((one, i) => ({ ...one, lengthMs: lengths[i]!, offsetMs: dice.below(5_000) }));
}

/** Resolves when the last one is over. */
export async function carryOut(
  planned: readonly Planned[],
  say: (text: string) => void,
): Promise<void> {
  await Promise.all(planned.map(async ({ what, begin, end, offsetMs, lengthMs }) => {
    await sleep(offsetMs);
    say(end ? `${what}, for ${lengthMs / 1000} s` : what);
    await begin();
    if (!end) return;
    await sleep(lengthMs);
    await end();
  }));
}

/** Tells with the seconds since this was called. */
export function sayer(): (text: string) => void {
  const startMs = performance.now();
  return (text) => console.log(`${Math.round((performance.now() - startMs) / 1000)} s: ${text}`);
}

// --- kinds of them

export interface Program {
  name: string;
  start: () => Promise<unknown>;
  stop: (how: Deno.Signal) => Promise<unknown>;
  signal: (how: Deno.Signal) => void;
}

export function ofProgram({ name, start, stop, signal }: Program): Disturbance[] {
  const touches = [name];
  return [
    { what: `${name} killed`, touches, begin: () => stop("SIGKILL"), end: start },
    { what: `${name} stopped`, touches, begin: () => stop("SIGTERM"), end: start },
    {
      what: `${name} freezes`,
      touches,
      begin: async () => signal("SIGSTOP"),
      end: async () => signal("SIGCONT"),
    },
  ];
}

/** One of the links whose names match. */
export function ofOwnLink(host: NamedShell, names: RegExp, dice: Dice): Disturbance[] {
  const each = (command: string) => async () => {
    const links = lines(await shell(host, "ls /sys/class/net")).filter((name) => names.test(name));
    if (links.length > 0) await shell(host, `${command} ${dice.pick(links)}`);
  };
  const touches = [host.name];
  return [
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
  ];
}

/** Of the host's own card, and of its routes. */
export function ofCard(
  host: NamedShell,
): Record<"down" | "noDefaultRoute" | "noRules", Disturbance> {
  const touches = [host.name];
  let routes = "";
  const keep = async () => {
    routes = await shell(host, `ip route show dev ${DEVICE} | grep -v 'proto kernel'`);
  };
  const restore = () =>
    shell(host, lines(routes).map((r) => `ip route replace ${r} dev ${DEVICE}`).join("\n"));
  return {
    down: {
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
    noDefaultRoute: {
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
    noRules: {
      what: `the rules of ${host.name} are flushed`,
      touches,
      begin: () => shell(host, "nft flush ruleset"),
    },
  };
}

let blocks = 0;

/** By a table of its own, so that several may be there. */
export function blocked(
  host: Shell,
  hooks: string | string[],
  rule: string,
): Pick<Disturbance, "begin" | "end"> {
  const table = `inet blocked${blocks++}`;
  const chains = [hooks].flat().map((hook) => {
    const matches = hook === "output" ? rule.replace("iifkind", "oifkind") : rule;
    return `chain ${hook} { type filter hook ${hook} priority -10; ${matches}; }`;
  });
  return {
    begin: () => shell(host, `nft 'table ${table} { ${chains.join("\n")} }'`),
    end: () => shell(host, `nft delete table ${table}`),
  };
}

export interface Shell {
  run(command: string, args: readonly string[]): Promise<{ stdout: string }>;
}

export type NamedShell = Shell & { readonly name: string };

/** What it prints. Failures are of no interest: what is to be disturbed may be gone. */
export async function shell(host: Shell, commands: string): Promise<string> {
  return (await host.run("sh", ["-c", commands])).stdout;
}

const lines = (text: string) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// --- what programs take

export interface Running {
  name: string;
  pid: number;
  startedMs: number;
}

interface Usage {
  files: number;
  megabytes: number;
}

/** Of programs since they settled. */
export class Usages {
  readonly #known = new Map<string, { pid: number; first: Usage; last: Usage; minutes: number }>();

  /** Throws {@link Fault} for one that has grown. */
  measure(programs: readonly Running[]): void {
    const nowMs = performance.now();
    for (const { name, pid, startedMs } of programs) {
      if (nowMs - startedMs < SETTLED_MS) continue;
      const now = usage(pid);
      const before = this.#known.get(name);
      const first = before?.pid === pid ? before.first : now;
      const minutes = Math.round((nowMs - startedMs) / 60_000);
      this.#known.set(name, { pid, first, last: now, minutes });
      if (now.files > first.files + MAX_MORE_FILES) {
        throw new Fault(`${name} has ${now.files} files open, and had ${first.files}`);
      }
      if (now.megabytes > first.megabytes + MAX_MORE_MEGABYTES) {
        throw new Fault(`${name} has ${now.megabytes} MB, and had ${first.megabytes}`);
      }
    }
  }

  print(): void {
    for (const [name, { first, last, minutes }] of this.#known) {
      console.log(
        `${name}, up ${minutes} min: files ${first.files} -> ${last.files}, ` +
          `MB ${first.megabytes} -> ${last.megabytes}`,
      );
    }
  }
}

function usage(pid: number): Usage {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const files = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
  return { files, megabytes: Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024) };
}

/** Throws {@link Fault} for one that has ended. */
export function checkRuns({ name, pid }: Pick<Running, "name" | "pid">): void {
  if (!isRunning(pid)) throw new Fault(`${name} has ended`);
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return false;
  }
}

/** To tell later what was logged since. */
export function markLogs(logs: () => { name: string; log: string }[]): () => string {
  const lengths = logs().map(({ log }) => log.length);
  return () => logs().map(({ name, log }, i) => `--- ${name}\n${log.slice(lengths[i])}`).join("\n");
}

export interface Episodes {
  join: () => Promise<void>;
  /** Disturbances, the time until all is well again, and all that has to hold then. */
  episode: () => Promise<void>;
  marks: () => () => string;
  /** How it is everywhere now. */
  state: () => Promise<string>;
}

/** Until the time is over, or the first fault, which it prints. Whether there was none. */
export async function soak(minutes: number, soaked: Episodes): Promise<boolean> {
  const endMs = performance.now() + minutes * 60_000;
  let marks = soaked.marks();
  try {
    await soaked.join();
    while (performance.now() < endMs) {
      marks = soaked.marks();
      await soaked.episode();
    }
    return true;
  } catch (error) {
    console.log(marks());
    console.log(await soaked.state());
    console.log(error instanceof Fault ? `FAULT: ${error.message}` : error);
    return false;
  }
}
