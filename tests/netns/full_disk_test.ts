/** The coordinator's database on a disk that becomes full, and has room again. */
import { deepStrictEqual, match, ok } from "node:assert/strict";
import { parseIp } from "../../lib/addr.ts";
import type { NodeRecord } from "../../lib/coord/api.ts";
import { SqliteStore } from "../../lib/coord/sqlite.ts";
import { errorText } from "../../lib/errors.ts";
import { discoKeyFromBytes, nodeKeyFromBytes } from "../../lib/keys.ts";

function record(n: number): NodeRecord {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return {
    ...{ nodeKey: nodeKeyFromBytes(key), discoKey: discoKeyFromBytes(key), name: `n${n}` },
    ...{ tunnelIp: parseIp(`100.64.${n >> 8}.${n & 255}`), endpoints: [], listed: true },
    ...{ updatedMs: 1, leaseEndsMs: 1 },
  };
}

function run(program: string, ...args: string[]): void {
  const { success, stderr } = new Deno.Command(program, { args }).outputSync();
  ok(success, new TextDecoder().decode(stderr));
}

Deno.test("all that was saved before a disk was full is there, and what could not be is told", () => {
  const dir = Deno.makeTempDirSync();
  run("mount", "-t", "tmpfs", "-o", "size=400k", "none", dir);
  try {
    const path = `${dir}/coord.db`;
    const saved: string[] = [];
    {
      using store = SqliteStore.open(path);
      store.save([record(0)], 1);
      saved.push(record(0).nodeKey);
      let refused = "";
      for (let n = 1; n < 5_000 && !refused; n++) {
        try {
          store.save([record(n)], n + 1);
          saved.push(record(n).nodeKey);
        } catch (error) {
          refused = errorText(error);
        }
      }
      match(refused, /full|I\/O/);
    }
    using again = SqliteStore.open(path);
    deepStrictEqual(again.nodes().map(({ nodeKey }) => nodeKey).sort(), saved.sort());
    run("mount", "-o", "remount,size=4m", dir);
    again.save([record(9_999)], 9_999);
    deepStrictEqual(again.nodes().length, saved.length + 1);
  } finally {
    run("umount", dir);
    Deno.removeSync(dir);
  }
});
