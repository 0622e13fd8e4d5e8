/** A machine's files, processes and signals in memory, as hub and spoke are given them. */
import type { Clock, Log, LogFields, Random } from "../../lib/edges.ts";
import type { Host } from "../../lib/host/mod.ts";
import type {
  Child,
  Files,
  FileText,
  Processes,
  ProcessFacts,
  World,
} from "../../lib/hub/world.ts";
import { MARK_VARIABLE } from "../../lib/hub/world.ts";
import type { StateDir } from "../../lib/state_dir.ts";
import { FakeHost } from "./host.ts";

/** Of one directory; what is no regular file throws when it is read. */
export class MemoryFiles implements Files {
  readonly #entries = new Map<string, FileText | "pipe">();
  readonly #watchers = new Map<() => void, string>();
  /** Where the system tells of no changes. */
  canWatch = true;

  put(path: string, text: string, mode = 0o600): void {
    this.#set(path, { text, mode });
  }

  putPipe(path: string): void {
    this.#set(path, "pipe");
  }

  delete(path: string): void {
    this.#set(path, undefined);
  }

  #set(path: string, entry: FileText | "pipe" | undefined): void {
    if (entry) this.#entries.set(path, entry);
    else this.#entries.delete(path);
    for (const [onChange, directory] of this.#watchers) {
      if (path.startsWith(`${directory}/`)) onChange();
    }
  }

  dropWatchers(): void {
    this.#watchers.clear();
  }

  names(directory: string): string[] {
    const prefix = `${directory}/`;
    return [...this.#entries.keys()].filter((path) => path.startsWith(prefix))
      .map((path) => path.slice(prefix.length));
  }

  read(path: string): FileText | undefined {
    const entry = this.#entries.get(path);
    if (entry === "pipe") throw new Error("is no regular file");
    return entry;
  }

  watch(directory: string, onChange: () => void): Disposable {
    if (!this.canWatch) throw new Error("no space left for watches");
    this.#watchers.set(onChange, directory);
    return { [Symbol.dispose]: () => void this.#watchers.delete(onChange) };
  }
}

export function memoryStateDir(path: string): StateDir & { files: Map<string, string> } {
  const files = new Map<string, string>();
  return {
    ...{ path, files },
    read: (name) => files.get(name),
    write: (name, text) => void files.set(name, text),
    remove: (name) => void files.delete(name),
  };
}

export interface MemoryProcess extends Child {
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  startTime: string;
  signals: string[];
  end(code: number, signal?: string): void;
}

const FIRST_PID = 1000;

export class MemoryProcesses implements Processes {
  /** All that were ever started. */
  readonly started: MemoryProcess[] = [];
  readonly running = new Map<number, MemoryProcess>();
  /** Shell commands, with what they were told. */
  readonly commands: { command: string; env: Readonly<Record<string, string>> }[] = [];
  /** Of programs that end at once, by name; undefined in it: they cannot be started. */
  readonly exitCodes = new Map<string, number | undefined>();
  /** They end on SIGKILL alone. */
  readonly stubborn = new Set<string>();
  #nextPid = FIRST_PID;

  spawn(argv: readonly string[], env: Readonly<Record<string, string>>): Child {
    const name = argv[0]!;
    const isShort = this.exitCodes.has(name);
    if (isShort && this.exitCodes.get(name) === undefined) throw new Error("no such program");
    const pid = this.#nextPid++;
    const { promise: status, resolve } = Promise.withResolvers<
      { code: number; signal: string | null }
    >();
    const process: MemoryProcess = {
      ...{ pid, argv, env, status, signals: [], startTime: String(100 + pid) },
      end: (code, signal) => {
        this.running.delete(pid);
        resolve({ code, signal: signal ?? null });
      },
    };
    this.started.push(process);
    this.running.set(pid, process);
    if (isShort) process.end(this.exitCodes.get(name)!);
    return process;
  }

  shell(command: string, env: Readonly<Record<string, string>>): Promise<number> {
    this.commands.push({ command, env });
    return Promise.resolve(0);
  }

  signalGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
    const process = this.running.get(pid);
    if (!process) return;
    process.signals.push(signal);
    const isDeaf = signal === "SIGTERM" && this.stubborn.has(process.argv[0]!);
    if (!isDeaf) process.end(signal === "SIGTERM" ? 143 : 137, signal);
  }

  facts(pid: number): ProcessFacts | undefined {
    const process = this.running.get(pid);
    if (!process) return undefined;
    const mark = process.env[MARK_VARIABLE];
    return { startTime: process.startTime, ...(mark === undefined ? {} : { mark }) };
  }
}

export interface LogLine extends LogFields {
  level: string;
  msg: string;
}

export class MemoryLog implements Log {
  readonly lines: LogLine[] = [];
  readonly debug = this.#at("debug");
  readonly info = this.#at("info");
  readonly warn = this.#at("warn");
  readonly error = this.#at("error");

  #at(level: string) {
    return (msg: string, fields: LogFields = {}) => void this.lines.push({ ...fields, level, msg });
  }

  /** Those with this message. */
  of(msg: string): LogLine[] {
    return this.lines.filter((line) => line.msg === msg);
  }
}

/** The same bytes in each run. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0 || 1;
  return (length) => {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      bytes[i] = state >>> 24;
    }
    return bytes;
  };
}

type Handler = (request: Request) => Response | Promise<Response>;

/** What survives a program that runs on it: files, processes, state. */
export class MemoryMachine {
  readonly files = new MemoryFiles();
  readonly processes = new MemoryProcesses();
  readonly log = new MemoryLog();
  readonly host: Host;
  /** What the service manager is told of the last program. */
  statusLine: (() => string) | undefined;
  readonly stateDirs = new Map<string, ReturnType<typeof memoryStateDir>>();
  readonly clock: Clock;
  readonly random: Random;
  readonly #handlers = new Map<string, Set<() => void>>();
  readonly #served = new Map<string, Handler>();

  constructor({ clock, seed, host = new FakeHost() }: {
    clock: Clock;
    seed: number;
    host?: Host;
  }) {
    this.host = host;
    this.clock = clock;
    this.random = seededRandom(seed);
  }

  world(): World {
    const { clock, random, log, files, processes, host } = this;
    return {
      ...{ clock, random, log, files, processes, host },
      openStateDir: (path) => {
        const known = this.stateDirs.get(path) ?? memoryStateDir(path);
        this.stateDirs.set(path, known);
        return known;
      },
      onSignal: (name, handler) => {
        const handlers = this.#handlers.get(name) ?? new Set();
        this.#handlers.set(name, handlers.add(handler));
        return { [Symbol.dispose]: () => void handlers.delete(handler) };
      },
      ready: (line) => this.statusLine = line,
      serveControl: ({ path }, handler) => {
        this.#served.set(path, handler);
        return Promise.resolve({
          [Symbol.asyncDispose]: () => {
            this.#served.delete(path);
            return Promise.resolve();
          },
        });
      },
    };
  }

  /** Those of a program that was killed. */
  dropHandlers(): void {
    this.#handlers.clear();
    this.#served.clear();
    this.files.dropWatchers();
  }

  signal(name: string): void {
    for (const handler of this.#handlers.get(name) ?? []) handler();
  }

  /** Undefined when nobody serves there. */
  async ask(path: string, pathname: string, method = "GET"): Promise<string | undefined> {
    const handler = this.#served.get(path);
    return await (await handler?.(new Request(`http://gretun${pathname}`, { method })))?.text();
  }
}
