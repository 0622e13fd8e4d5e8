/** What outlives the coordinator: its nodes, in one SQLite file. */
import { DatabaseSync } from "node:sqlite";
import { formatEndpoint, parseEndpoint, parseIp } from "../addr.ts";
import { errorText, GretunError } from "../errors.ts";
import type { DiscoKey, NodeKey } from "../keys.ts";
import type { EndpointSource } from "./api.ts";
import type { NodeRecord } from "./registry.ts";

const SCHEMA_VERSION = 2;
const OTHER_FILE = "Give another file with --state, or move this one away to start afresh";

/** Every write is on the disk when the call returns (WAL with synchronous=FULL); one process has the file at a time. */
export class Store implements Disposable {
  readonly #db: DatabaseSync;

  /** `:memory:` keeps nothing. Throws `GretunError`. */
  static open(path: string): Store {
    try {
      return new Store(new DatabaseSync(path));
    } catch (cause) {
      throw new GretunError(
        `cannot open ${path}: ${errorText(cause)}`,
        OTHER_FILE,
        { cause },
      );
    }
  }

  private constructor(db: DatabaseSync) {
    this.#db = db;
    // Two coordinators on one file would hand out the same addresses.
    db.exec("PRAGMA busy_timeout = 500; PRAGMA locking_mode = EXCLUSIVE");
    db.exec("PRAGMA journal_mode = WAL");
    db.exec("PRAGMA synchronous = FULL");
    const { user_version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (user_version !== 0 && user_version !== SCHEMA_VERSION) {
      throw new Error("it was written by another version of gretun-coord");
    }
    db.exec(`
      CREATE TABLE IF NOT EXISTS nodes (
        node_key TEXT PRIMARY KEY, disco_key TEXT NOT NULL, name TEXT NOT NULL,
        tunnel_ip TEXT NOT NULL, endpoints TEXT NOT NULL, updated_ms INTEGER NOT NULL,
        lease_ends_ms INTEGER NOT NULL, listed INTEGER NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS version (id INTEGER PRIMARY KEY, value INTEGER NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS seeds (name TEXT PRIMARY KEY, seed BLOB NOT NULL) STRICT;
      PRAGMA user_version = ${SCHEMA_VERSION};`);
  }

  /** Throws `GretunError` when a row is not what {@link Store.save} writes. */
  nodes(): NodeRecord[] {
    try {
      return this.#db.prepare("SELECT * FROM nodes").all().map(nodeOf);
    } catch (cause) {
      throw new GretunError(`the state file is damaged: ${errorText(cause)}`, OTHER_FILE, {
        cause,
      });
    }
  }

  /** The list's version at the last write. */
  version(): number {
    const row = this.#db.prepare("SELECT value FROM version WHERE id = 1").get();
    return Number(row?.value ?? 0);
  }

  /** The secret of that name, which is the same ever after; the first time it is `fresh`. */
  seed(name: string, fresh: Uint8Array): Uint8Array {
    this.#db.prepare("INSERT OR IGNORE INTO seeds VALUES (?, ?)").run(name, fresh);
    const row = this.#db.prepare("SELECT seed FROM seeds WHERE name = ?").get(name);
    return row!.seed as Uint8Array;
  }

  /** All or nothing. A node that had one of these addresses before is gone with that. */
  save(records: readonly NodeRecord[], version: number): void {
    this.#db.exec("BEGIN");
    try {
      for (const record of records) this.#saveNode(record);
      this.#db.prepare("INSERT OR REPLACE INTO version VALUES (1, ?)").run(version);
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  #saveNode(record: NodeRecord): void {
    const endpoints = record.endpoints.map((e) => [formatEndpoint(e.endpoint), e.source]);
    this.#db.prepare("DELETE FROM nodes WHERE tunnel_ip = ? AND node_key <> ?")
      .run(record.tunnelIp, record.nodeKey);
    this.#db.prepare("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?)").run(
      record.nodeKey,
      record.discoKey,
      record.name,
      record.tunnelIp,
      JSON.stringify(endpoints),
      record.updatedMs,
      record.leaseEndsMs,
      Number(record.listed),
    );
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}

function nodeOf(row: Record<string, unknown>): NodeRecord {
  return {
    nodeKey: row.node_key as NodeKey,
    discoKey: row.disco_key as DiscoKey,
    name: String(row.name),
    tunnelIp: parseIp(String(row.tunnel_ip)),
    endpoints: (JSON.parse(String(row.endpoints)) as [string, EndpointSource][])
      .map(([text, source]) => ({ endpoint: parseEndpoint(text), source })),
    updatedMs: Number(row.updated_ms),
    leaseEndsMs: Number(row.lease_ends_ms),
    listed: row.listed === 1,
  };
}
