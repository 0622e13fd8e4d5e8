/** The coordinator's store in one SQLite file. */
import { DatabaseSync } from "node:sqlite";
import { errorText, GretunError } from "../errors.ts";
import { type DiscoKey, keyBase64, type NodeKey } from "../keys.ts";
import {
  type NodeRecord,
  parseRecord,
  parseToken,
  recordJson,
  tokenJson,
  type TokenRecord,
} from "./api.ts";
import type { Store } from "./store.ts";

const OTHER_FILE = "Give another file with --state, or move this one away to start afresh";

const OTHER_PROCESS =
  "Another gretun-coord uses it: stop that one, or give another file with --state";

/** The first schema that there are files of. */
const FIRST_SCHEMA = 2;
/** Each brings a file to the next schema, in one transaction with its number. */
const MIGRATIONS: ((db: DatabaseSync) => void)[] = [nodesAsJson, addTokens];
const SCHEMA = FIRST_SCHEMA + MIGRATIONS.length;

/** Every write is on the disk when the call returns (WAL with synchronous=FULL); one process has the file at a time. */
export class SqliteStore implements Store {
  readonly #db: DatabaseSync;

  /** `:memory:` keeps nothing. Throws `GretunError`. */
  static open(path: string): SqliteStore {
    try {
      return new SqliteStore(new DatabaseSync(path));
    } catch (cause) {
      const text = errorText(cause);
      const hint = /database is locked/.test(text) ? OTHER_PROCESS : OTHER_FILE;
      throw new GretunError(`cannot open ${path}: ${text}`, hint, { cause });
    }
  }

  private constructor(db: DatabaseSync) {
    this.#db = db;
    try {
      // Two coordinators on one file would hand out the same addresses.
      db.exec("PRAGMA busy_timeout = 500; PRAGMA locking_mode = EXCLUSIVE");
      db.exec("PRAGMA journal_mode = WAL");
      db.exec("PRAGMA synchronous = FULL");
      check(db);
      migrate(db);
    } catch (error) {
      db.close();
      throw error;
    }
  }

  /** Throws `GretunError` when a row is not what {@link SqliteStore.save} writes. */
  nodes(): NodeRecord[] {
    return this.#records("nodes", parseRecord);
  }

  tokens(): TokenRecord[] {
    return this.#records("tokens", parseToken);
  }

  #records<T>(table: "nodes" | "tokens", parse: (value: unknown) => T): T[] {
    try {
      return this.#db.prepare(`SELECT record FROM ${table}`).all()
        .map(({ record }) => parse(JSON.parse(String(record))));
    } catch (cause) {
      throw new GretunError(`the state file is damaged: ${errorText(cause)}`, OTHER_FILE, {
        cause,
      });
    }
  }

  version(): number {
    const row = this.#db.prepare("SELECT value FROM version WHERE id = 1").get();
    return Number(row?.value ?? 0);
  }

  seed(name: string, fresh: Uint8Array): Uint8Array {
    this.#db.prepare("INSERT OR IGNORE INTO seeds VALUES (?, ?)").run(name, fresh);
    const row = this.#db.prepare("SELECT seed FROM seeds WHERE name = ?").get(name);
    return row!.seed as Uint8Array;
  }

  save(records: readonly NodeRecord[], version: number, gone: readonly NodeKey[] = []): void {
    transaction(this.#db, () => {
      const remove = this.#db.prepare("DELETE FROM nodes WHERE node_key = ?");
      for (const key of gone) remove.run(key);
      // Replaces the row of the same node, and that of who had its address.
      const put = this.#db.prepare("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)");
      for (const record of records) {
        put.run(record.nodeKey, record.tunnelIp, JSON.stringify(recordJson(record)));
      }
      this.#db.prepare("INSERT OR REPLACE INTO version VALUES (1, ?)").run(version);
    });
  }

  saveToken(token: TokenRecord): void {
    this.#db.prepare("INSERT OR REPLACE INTO tokens VALUES (?, ?)")
      .run(token.hash, JSON.stringify(tokenJson(token)));
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}

function transaction(db: DatabaseSync, act: () => void): void {
  db.exec("BEGIN");
  try {
    act();
    db.exec("COMMIT");
  } catch (error) {
    rollBack(db);
    throw error;
  }
}

function rollBack(db: DatabaseSync): void {
  try {
    db.exec("ROLLBACK");
  } catch {
    // A full disk has ended the transaction already.
  }
}

/** A damaged page shows itself at the start rather than when a node needs it. */
function check(db: DatabaseSync): void {
  const [first] = db.prepare("PRAGMA quick_check(1)").all();
  const found = String(first?.quick_check ?? "ok");
  if (found !== "ok") throw new Error(`it is damaged: ${found.replace(/\s+/g, " ")}`);
}

// --- schemas

function migrate(db: DatabaseSync): void {
  const { user_version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  if (user_version === SCHEMA) return;
  if (user_version !== 0 && (user_version < FIRST_SCHEMA || user_version > SCHEMA)) {
    throw new Error("it was written by another version of gretun-coord");
  }
  transaction(db, () => {
    if (user_version === 0) createFirst(db);
    for (const step of MIGRATIONS.slice(Math.max(user_version - FIRST_SCHEMA, 0))) step(db);
    db.exec(`PRAGMA user_version = ${SCHEMA}`);
  });
}

function createFirst(db: DatabaseSync): void {
  db.exec(`
    CREATE TABLE nodes (
      node_key TEXT PRIMARY KEY, disco_key TEXT NOT NULL, name TEXT NOT NULL,
      tunnel_ip TEXT NOT NULL, endpoints TEXT NOT NULL, updated_ms INTEGER NOT NULL,
      lease_ends_ms INTEGER NOT NULL, listed INTEGER NOT NULL) STRICT;
    CREATE TABLE version (id INTEGER PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE seeds (name TEXT PRIMARY KEY, seed BLOB NOT NULL) STRICT`);
}

/** To schema 3: what there is of a node is one JSON text, so that attributes come without columns. */
function nodesAsJson(db: DatabaseSync): void {
  const rows = db.prepare("SELECT * FROM nodes").all();
  db.exec(`
    DROP TABLE nodes;
    CREATE TABLE nodes (
      node_key TEXT PRIMARY KEY, tunnel_ip TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT`);
  const put = db.prepare("INSERT INTO nodes VALUES (?, ?, ?)");
  for (const row of rows) {
    const record = recordOfRow(row);
    put.run(record.nodeKey, record.tunnelIp, JSON.stringify(recordJson(record)));
  }
}

function addTokens(db: DatabaseSync): void {
  db.exec("CREATE TABLE tokens (hash TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT");
}

function recordOfRow(row: Record<string, unknown>): NodeRecord {
  const endpoints = JSON.parse(String(row.endpoints)) as [string, string][];
  return parseRecord({
    node_pubkey: keyBase64(row.node_key as NodeKey),
    disco_pubkey: keyBase64(row.disco_key as DiscoKey),
    node_name: row.name,
    tunnel_ip: row.tunnel_ip,
    endpoints: endpoints.map(([addr, source]) => ({ addr, source })),
    updated_ms: row.updated_ms,
    lease_ends_ms: row.lease_ends_ms,
    listed: row.listed === 1,
  });
}
