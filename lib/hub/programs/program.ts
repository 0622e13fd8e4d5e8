/**
 * Programs that run for as long as a link is there, and scripts that are run once when it comes
 * and when it goes. A program is a process group of its own: SIGTERM, then SIGKILL.
 */
import { toHex } from "../../bytes.ts";
import { timeLimit } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import type { StateDir } from "../../state_dir.ts";
import { type Child, MARK_VARIABLE, type World } from "../world.ts";

const SCRIPT_TIMEOUT_MS = 30_000;
const END_POLL_MS = 20;
const MARK_LENGTH = 16;

type Surroundings = Pick<World, "clock" | "log" | "random" | "processes"> & { stateDir: StateDir };

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

/** What a later run can prove to be a program of this one. */
interface Remembered {
  pid: number;
  startTime: string;
  mark: string;
}

interface Running {
  child: Child;
  startTime: string;
  mark: string;
  ended: Promise<void>;
  isStopping: boolean;
}

export class Programs {
  /** For what is started from now on. */
  options: ProgramOptions;
  readonly #world: Surroundings;
  readonly #running = new Map<string, Running>();
  readonly #stopping = new Set<Promise<void>>();

  constructor(options: ProgramOptions, world: Surroundings) {
    this.options = options;
    this.#world = world;
  }

  pid(name: string): number | undefined {
    return this.#running.get(name)?.child.pid;
  }

  /** Ends what a killed run left behind. */
  async endLeftovers(): Promise<void> {
    const { log, processes } = this.#world;
    for (const { pid, startTime, mark } of this.#remembered()) {
      const facts = processes.facts(pid);
      if (facts?.startTime !== startTime) continue;
      if (facts.mark !== mark) {
        log.warn("program of an earlier run left alone: it cannot be told from another's", { pid });
        continue;
      }
      log.info("program of an earlier run ended", { pid });
      await this.#end(pid, startTime, () => processes.facts(pid)?.startTime !== startTime);
    }
    this.#forget();
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
    this.#forget();
  }

  #start(name: string, env: Record<string, string>): void {
    const { log, processes, random } = this.#world;
    const { argv } = this.options;
    const mark = toHex(random(MARK_LENGTH));
    let child: Child;
    try {
      child = processes.spawn(argv, { ...env, [MARK_VARIABLE]: mark });
    } catch (error) {
      log.error("program not started", { client: name, program: argv[0], error: errorText(error) });
      // The link's maker is still at it.
      queueMicrotask(() => this.options.onFailed(name, `cannot be started: ${errorText(error)}`));
      return;
    }
    const startTime = processes.facts(child.pid)?.startTime ?? "";
    const running = { child, startTime, mark, ended: Promise.resolve(), isStopping: false };
    running.ended = this.#reap(name, running);
    this.#running.set(name, running);
    log.info("program started", { client: name, pid: child.pid });
    this.#save();
  }

  async #reap(name: string, running: Running): Promise<void> {
    const { log } = this.#world;
    const { code, signal } = await running.child.status;
    const fields = { client: name, pid: running.child.pid, code, ...(signal ? { signal } : {}) };
    if (code === 0 || running.isStopping) log.info("program ended", fields);
    else log.error("program failed", fields);
    const isCurrent = this.#running.get(name) === running;
    if (isCurrent) this.#running.delete(name);
    this.#save();
    if (isCurrent && code !== 0) this.options.onFailed(name, `ended with code ${code}`);
  }

  async #stop(running: Running): Promise<void> {
    let hasEnded = false;
    running.isStopping = true;
    void running.ended.then(() => hasEnded = true);
    await this.#end(running.child.pid, running.startTime, () => hasEnded);
    await running.ended;
  }

  async #end(pid: number, startTime: string, hasEnded: () => boolean): Promise<void> {
    const { clock, processes } = this.#world;
    const deadlineMs = clock.nowMs() + this.options.graceMs;
    if (!hasEnded()) processes.signalGroup(pid, "SIGTERM");
    while (!hasEnded() && clock.nowMs() < deadlineMs) await clock.sleep(END_POLL_MS);
    // What the program started and left behind belongs to it, and keeps its number from being
    // given away: a process that has it all the same shows that nothing was left.
    const facts = processes.facts(pid);
    if (!facts || facts.startTime === startTime) processes.signalGroup(pid, "SIGKILL");
  }

  #script(what: string, command: string, name: string, env: Record<string, string>): void {
    const { log, clock, processes } = this.#world;
    const run = async () => {
      using limit = timeLimit(clock, SCRIPT_TIMEOUT_MS);
      const code = await processes.shell(command, env, limit.signal);
      if (code !== 0) log.error(`${what} failed`, { client: name, code });
    };
    this.#track(
      run().catch((error) => {
        log.error(`${what} failed`, { client: name, error: errorText(error) });
      }),
    );
  }

  #track(work: Promise<void>): void {
    this.#stopping.add(work);
    void work.finally(() => this.#stopping.delete(work));
  }

  #save(): void {
    const state = [...this.#running.values()].map(({ child, startTime, mark }): Remembered => {
      return { pid: child.pid, startTime, mark };
    });
    try {
      this.#world.stateDir.write(this.options.stateFile, JSON.stringify(state));
    } catch (error) {
      this.#world.log.warn("programs not remembered", { error: errorText(error) });
    }
  }

  #remembered(): Remembered[] {
    try {
      const text = this.#world.stateDir.read(this.options.stateFile);
      return text === undefined ? [] : parseRemembered(text);
    } catch (error) {
      this.#world.log.warn("programs of an earlier run not looked at", { error: errorText(error) });
      return [];
    }
  }

  #forget(): void {
    try {
      this.#world.stateDir.remove(this.options.stateFile);
    } catch (error) {
      this.#world.log.warn("programs not forgotten", { error: errorText(error) });
    }
  }
}

/** None for what was cut short by a kill. */
function parseRemembered(text: string): Remembered[] {
  let state: unknown;
  try {
    state = JSON.parse(text);
  } catch {
    return [];
  }
  if (!Array.isArray(state)) return [];
  return state.filter((each: unknown): each is Remembered => {
    const { pid, startTime, mark } = each as Partial<Remembered> ?? {};
    return Number.isInteger(pid) && pid! > 1 && isText(startTime) && isText(mark);
  });
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
