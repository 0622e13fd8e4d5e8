/**
 * Programs that run for as long as a link is there, and scripts that are run once when it comes
 * and when it goes. A program is a process group of its own: SIGTERM, then SIGKILL.
 */
import type { Clock, Log } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import { readKernelFile, SystemError } from "../../linux/mod.ts";

/** Given to this program by its environment; no program of a link gets them. */
const SECRET_VARIABLES = ["GRETUN_TOKEN", "GRETUN_SECRET", "GRETUN_PRIVATE_KEY"];
const SCRIPT_TIMEOUT_MS = 30_000;
/** Field 22 of /proc/PID/stat, counted from the one after the name in parentheses. */
const START_TIME_FIELD = 19;

export interface ProgramOptions {
  /** Program and arguments; empty: none. */
  argv: readonly string[];
  /** Between SIGTERM and SIGKILL. */
  graceMs: number;
  onUp?: string;
  onDown?: string;
  /** Remembers what runs, so that the next start can end what a killed one left. */
  stateFile: string;
  /** The link's program could not be started, or ended with another code than 0. */
  onFailed: (name: string, why: string) => void;
}

interface Running {
  child: Deno.ChildProcess;
  startTime: string;
  ended: Promise<void>;
  isStopping: boolean;
}

export class Programs {
  /** For what is started from now on. */
  options: ProgramOptions;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #running = new Map<string, Running>();
  readonly #stopping = new Set<Promise<void>>();

  constructor(options: ProgramOptions, { clock, log }: { clock: Clock; log: Log }) {
    this.options = options;
    this.#clock = clock;
    this.#log = log;
  }

  pid(name: string): number | undefined {
    return this.#running.get(name)?.child.pid;
  }

  /** Ends what a killed run left behind. */
  async endLeftovers(): Promise<void> {
    const { stateFile } = this.options;
    for (const { pid, startTime } of await readState(stateFile)) {
      if (startTimeOf(pid) !== startTime) continue;
      this.#log.info("program of an earlier run ended", { pid });
      await this.#end(pid, () => startTimeOf(pid) !== startTime);
    }
    await Deno.remove(stateFile).catch(() => {});
  }

  /** A link is there: starts the program and runs the script. */
  up(name: string, env: Record<string, string>): void {
    if (this.options.onUp) this.#script("on-up", this.options.onUp, name, env);
    if (this.options.argv.length > 0 && !this.#running.has(name)) this.#start(name, env);
  }

  /** The link is gone, or goes now. */
  down(name: string, env: Record<string, string>): void {
    const running = this.#running.get(name);
    this.#running.delete(name);
    if (running) this.#track(this.#stop(running));
    if (this.options.onDown) this.#script("on-down", this.options.onDown, name, env);
  }

  /** Resolves when everything has ended. */
  async close(): Promise<void> {
    for (const running of this.#running.values()) this.#track(this.#stop(running));
    this.#running.clear();
    await Promise.all(this.#stopping);
    await Deno.remove(this.options.stateFile).catch(() => {});
  }

  #start(name: string, env: Record<string, string>): void {
    const [command, ...args] = this.options.argv;
    let child: Deno.ChildProcess;
    try {
      child = new Deno.Command(command!, {
        args,
        ...environment(env),
        stdin: "null",
        stdout: "inherit",
        stderr: "inherit",
        detached: true,
      }).spawn();
    } catch (error) {
      this.#log.error("program not started", {
        client: name,
        program: command,
        error: errorText(error),
      });
      // The link's maker is still at it.
      queueMicrotask(() => this.options.onFailed(name, `cannot be started: ${errorText(error)}`));
      return;
    }
    const startTime = startTimeOf(child.pid) ?? "";
    const running: Running = { child, startTime, ended: Promise.resolve(), isStopping: false };
    running.ended = this.#reap(name, running);
    this.#running.set(name, running);
    this.#log.info("program started", { client: name, pid: child.pid });
    this.#save();
  }

  async #reap(name: string, running: Running): Promise<void> {
    const { code, signal } = await running.child.status;
    const fields = { client: name, pid: running.child.pid, code, ...(signal ? { signal } : {}) };
    if (code === 0 || running.isStopping) this.#log.info("program ended", fields);
    else this.#log.error("program failed", fields);
    const isCurrent = this.#running.get(name) === running;
    if (isCurrent) this.#running.delete(name);
    this.#save();
    if (isCurrent && code !== 0) this.options.onFailed(name, `ended with code ${code}`);
  }

  async #stop(running: Running): Promise<void> {
    let hasEnded = false;
    running.isStopping = true;
    void running.ended.then(() => hasEnded = true);
    await this.#end(running.child.pid, () => hasEnded);
    await running.ended;
  }

  async #end(pid: number, hasEnded: () => boolean): Promise<void> {
    const deadlineMs = this.#clock.nowMs() + this.options.graceMs;
    signalGroup(pid, "SIGTERM");
    while (!hasEnded() && this.#clock.nowMs() < deadlineMs) await this.#clock.sleep(20);
    // What the program started and left behind belongs to it.
    signalGroup(pid, "SIGKILL");
  }

  #script(what: string, command: string, name: string, env: Record<string, string>): void {
    const run = async () => {
      const signal = AbortSignal.timeout(SCRIPT_TIMEOUT_MS);
      const spec = { ...environment(env), stdin: "null" as const, signal };
      const { code } = await new Deno.Command("/bin/sh", {
        args: ["-c", command],
        ...spec,
        stdout: "inherit",
        stderr: "inherit",
      }).spawn().status;
      if (code !== 0) this.#log.error(`${what} failed`, { client: name, code });
    };
    this.#track(
      run().catch((error) => {
        this.#log.error(`${what} failed`, { client: name, error: errorText(error) });
      }),
    );
  }

  #track(work: Promise<void>): void {
    this.#stopping.add(work);
    void work.finally(() => this.#stopping.delete(work));
  }

  #save(): void {
    const state = [...this.#running.values()]
      .map(({ child, startTime }) => ({ pid: child.pid, startTime }));
    try {
      Deno.writeTextFileSync(this.options.stateFile, JSON.stringify(state), { mode: 0o600 });
    } catch (error) {
      this.#log.warn("programs not remembered", { error: errorText(error) });
    }
  }
}

function environment(env: Record<string, string>) {
  const inherited = Deno.env.toObject();
  for (const name of SECRET_VARIABLES) delete inherited[name];
  return { env: { ...inherited, ...env }, clearEnv: true };
}

function signalGroup(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(-pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended
  }
}

/** Tells a process from a later one with the same number; undefined when there is none. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readKernelFile(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[START_TIME_FIELD];
  } catch (error) {
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}

async function readState(path: string): Promise<{ pid: number; startTime: string }[]> {
  try {
    const state: unknown = JSON.parse(await Deno.readTextFile(path));
    if (!Array.isArray(state)) return [];
    return state.filter((each) => Number.isInteger(each?.pid) && each.pid > 1 && each.startTime);
  } catch {
    return []; // none, or cut short by the kill
  }
}
