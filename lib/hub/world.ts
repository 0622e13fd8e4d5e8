/** What hub and spoke are given: `system/` has the real one, tests one in memory. */
import type { Clock, Log, Random } from "../edges.ts";
import type { Host } from "../host/mod.ts";
import type { StateDir } from "../state_dir.ts";

export interface World {
  clock: Clock;
  random: Random;
  log: Log;
  host: Host;
  files: Files;
  processes: Processes;
  /** Throws `GretunError` when it cannot be made, or is not this user's alone. */
  openStateDir(path: string): StateDir;
  onSignal(name: "SIGHUP" | "SIGUSR1", handler: () => void): Disposable;
  /** HTTP on a unix socket; throws `GretunError`. */
  serveControl(
    place: { path: string; program: string },
    handler: (request: Request) => Response | Promise<Response>,
  ): Promise<AsyncDisposable>;
  /** It can be asked now: a line on how it is, for who asks the service manager. */
  ready(line: () => string): void;
}

export interface FileText {
  text: string;
  /** Permission bits, as `chmod` has them. */
  mode: number;
}

export interface Files {
  /** Of all but directories. Throws what the system says. */
  names(directory: string): string[];
  /** Of a regular file, links followed; undefined when it is not there. Throws for all others. */
  read(path: string, maxBytes: number): FileText | undefined;
  /** Calls `onChange` for each change in a directory. Throws where the system cannot tell. */
  watch(directory: string, onChange: () => void): Disposable;
}

export interface Child {
  readonly pid: number;
  readonly status: Promise<{ code: number; signal: string | null }>;
}

/** What tells a running process from every other one. */
export interface ProcessFacts {
  /** Since boot, in the kernel's ticks. */
  startTime: string;
  /** Of its environment, {@link MARK_VARIABLE}. */
  mark?: string;
}

/** Given to each program: a process without it is none of ours, whatever its number. */
export const MARK_VARIABLE = "GRETUN_RUN";

export interface Processes {
  /** A program in a process group of its own, of the child's number. Throws what the system says. */
  spawn(argv: readonly string[], env: Readonly<Record<string, string>>): Child;
  /** A shell's exit code; it is killed when the signal is aborted. */
  shell(
    command: string,
    env: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<number>;
  /** A group that is not there any more is no error. */
  signalGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void;
  /** Undefined when no such process runs. */
  facts(pid: number): ProcessFacts | undefined;
}
