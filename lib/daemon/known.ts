/**
 * What this node remembers of others from one start to the next, as JSON in one file: by the
 * coordinator's URL, its key.
 */
import type { Log } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { keyBase64, type NodeKey, nodeKeyFromBase64 } from "../keys.ts";

/** A file of the state directory. */
export interface KnownFile {
  readonly path: string;
  /** Undefined where there is none. */
  read(): string | undefined;
  /** Replaces it; throws what the system says. */
  write(text: string): void;
}

interface KnownCoordinator {
  key?: NodeKey;
}

export class Known {
  readonly #file: KnownFile;
  readonly #url: string;
  readonly #log: Log;
  readonly #coordinators: Map<string, KnownCoordinator>;

  /** Throws `GretunError` for a file that is none of ours. */
  constructor(file: KnownFile, url: string, log: Log) {
    this.#file = file;
    this.#url = url;
    this.#log = log;
    this.#coordinators = readFile(file);
  }

  get coordinatorKey(): NodeKey | undefined {
    return this.#coordinators.get(this.#url)?.key;
  }

  setCoordinatorKey(key: NodeKey): void {
    if (key === this.coordinatorKey) return;
    this.#coordinators.set(this.#url, { ...this.#coordinators.get(this.#url), key });
    this.#write();
  }

  #write(): void {
    const coordinators = Object.fromEntries(
      [...this.#coordinators].map(([url, { key }]) => [url, key ? { key: keyBase64(key) } : {}]),
    );
    try {
      this.#file.write(JSON.stringify({ coordinators }) + "\n");
    } catch (error) {
      this.#log.warn("not remembered: a later start will not know who was met", {
        path: this.#file.path,
        error: errorText(error),
      });
    }
  }
}

/** Throws `GretunError`. */
function readFile(file: KnownFile): Map<string, KnownCoordinator> {
  const text = file.read();
  if (text === undefined) return new Map();
  try {
    const { coordinators } = JSON.parse(text) as { coordinators: Record<string, { key?: string }> };
    return new Map(
      Object.entries(coordinators).map((
        [url, { key }],
      ) => [url, key === undefined ? {} : { key: nodeKeyFromBase64(key) }]),
    );
  } catch (cause) {
    throw new GretunError(
      `cannot use ${file.path}: ${errorText(cause)}`,
      "Restore it from a copy, or move it away: whoever is met then is taken for who it was",
      { cause },
    );
  }
}
