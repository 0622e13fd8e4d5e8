/**
 * What outlives the coordinator. The rest of the coordinator knows nothing of how it is kept:
 * another store is another file that implements this, and a choice at the start.
 */
import type { NodeKey } from "../keys.ts";
import type { NodeRecord, TokenRecord } from "./api.ts";

export interface Store extends Disposable {
  /** Throws `GretunError` when what is kept cannot be read. */
  nodes(): NodeRecord[];
  /** The list's version at the last write. */
  version(): number;
  tokens(): TokenRecord[];
  /**
   * All or nothing, and safe from a crash when it returns. A node that had one of these addresses
   * before is gone with that, and so are those that are named. Throws when it cannot be written; then
   * nothing was.
   */
  save(records: readonly NodeRecord[], version: number, gone?: readonly NodeKey[]): void;
  saveToken(token: TokenRecord): void;
  /** The secret of that name, which is the same ever after; the first time it is `fresh`. */
  seed(name: string, fresh: Uint8Array): Uint8Array;
}
