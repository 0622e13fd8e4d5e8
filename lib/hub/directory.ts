/** The directory of authorised clients: read as a whole, again when it changes or may have. */
import { Alarm } from "../alarm.ts";
import { problemsText } from "../config.ts";
import { errorFields, errorText, GretunError } from "../errors.ts";
import { type ClientFile, isClientName, parseClientFile, withoutConflicts } from "./clients.ts";
import { equalValues } from "./reload.ts";
import type { Files, World } from "./world.ts";

/** Editors write in several steps. */
const SETTLE_MS = 60;
const MAX_FILE_BYTES = 65_536;
/** Strangers can make the hub look, but not all the time. */
const LOOK_GAP_MS = 1_000;

export interface Directory {
  clients: ClientFile[];
  /** What is wrong with the others, one line each. */
  problems: string[];
}

/** Throws `GretunError` when the directory itself cannot be read. */
export function readDirectory(files: Files, path: string): Directory {
  const problems: string[] = [];
  const clients: ClientFile[] = [];
  for (const name of fileNames(files, path)) {
    const file = `${path}/${name}`;
    if (!isClientName(name)) {
      if (!name.startsWith(".")) problems.push(`${file}: is no name of a client`);
      continue;
    }
    const parsed = readClient(files, file, name);
    if (parsed === undefined) continue;
    if (typeof parsed === "string") problems.push(parsed);
    else clients.push(parsed);
  }
  const { clients: kept, conflicts } = withoutConflicts(clients);
  for (const { name, with: other, cidr } of conflicts) {
    problems.push(`${path}/${name}: ${cidr} is ${other}'s already`);
  }
  return { clients: kept, problems };
}

function fileNames(files: Files, path: string): string[] {
  try {
    return files.names(path).sort();
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    throw new GretunError(
      `cannot read the clients' directory ${path}: ${errorText(cause)}`,
      "Make it, or name another one with --clients",
      { cause },
    );
  }
}

/** The client; what is wrong; undefined for a file that has gone meanwhile. */
function readClient(files: Files, file: string, name: string): ClientFile | string | undefined {
  try {
    const read = files.read(file, MAX_FILE_BYTES);
    if (!read) return undefined;
    const parsed = parseClientFile(name, read.text);
    if ("problems" in parsed) return problemsText(file, parsed.problems);
    const { client } = parsed;
    const isSecret = client.token !== undefined || client.secret !== undefined;
    if (isSecret && (read.mode & 0o077) !== 0) {
      return `${file}: has a secret and others can read it: run chmod 600 ${file}`;
    }
    return client;
  } catch (error) {
    return `${file}: ${errorText(error)}`;
  }
}

export interface DirectoryEvents {
  /** The file that this client is known by; undefined: it is not authorised. */
  known(name: string): ClientFile | undefined;
  names(): Iterable<string>;
  /** What is wrong with it; then it is not authorised. */
  added(file: ClientFile): string | undefined;
  removed(name: string, why: "changed" | "removed"): void;
  /** All of it was read. */
  looked(): void;
}

/** Keeps the authorised clients as the directory has them. */
export class ClientDirectory implements Disposable {
  readonly path: string;
  /** What is wrong with those that are not authorised. */
  problems: string[] = [];
  readonly #world: World;
  readonly #events: DirectoryEvents;
  readonly #settle: Alarm;
  readonly #look: Alarm;
  #watcher: Disposable | undefined;
  #lookedMs = -Infinity;

  constructor(path: string, world: World, events: DirectoryEvents) {
    this.path = path;
    this.#world = world;
    this.#events = events;
    this.#settle = new Alarm(world.clock, () => this.reload());
    this.#look = new Alarm(world.clock, () => this.reload());
  }

  /** Reads it, and again after each change. Throws `GretunError` when it cannot be read. */
  open(): void {
    const { files, log } = this.#world;
    let unwatched: unknown;
    try {
      this.#watcher = files.watch(this.path, () => this.#settle.within(SETTLE_MS));
    } catch (error) {
      unwatched = error;
    }
    this.#load();
    if (!unwatched) return;
    log.warn("clients' directory not watched: send SIGHUP after changes", {
      error: errorText(unwatched),
    });
  }

  /** Whoever is not there any more is disconnected. A directory that cannot be read changes nothing. */
  reload(): void {
    try {
      this.#load();
    } catch (error) {
      this.#world.log.error("clients not read, the old ones stay", errorFields(error));
    }
  }

  /** It may have changed: now, unless that was done a moment ago, then soon. */
  lookAgain(): void {
    this.#look.setEarlier(this.#lookedMs + LOOK_GAP_MS);
  }

  #load(): void {
    const { files, clock, log } = this.#world;
    const events = this.#events;
    this.#lookedMs = clock.nowMs();
    const { clients, problems } = readDirectory(files, this.path);
    const listed = new Map(clients.map((client) => [client.name, client]));
    for (const name of [...events.names()]) {
      const file = listed.get(name);
      if (file && equalValues(file, events.known(name))) listed.delete(name);
      else events.removed(name, file ? "changed" : "removed");
    }
    for (const file of listed.values()) {
      const problem = events.added(file);
      if (problem) problems.push(`${this.path}/${file.name}: ${problem}`);
    }
    for (const problem of problems) {
      if (!this.problems.includes(problem)) log.warn("client not authorised", { problem });
    }
    this.problems = problems;
    events.looked();
  }

  [Symbol.dispose](): void {
    this.#watcher?.[Symbol.dispose]();
    this.#settle[Symbol.dispose]();
    this.#look[Symbol.dispose]();
  }
}
