/** The coordinator's database on a disk that becomes full, and has room again. */
import { deepStrictEqual, match, ok } from "node:assert/strict";
import { SqliteStore } from "../../lib/coord/sqlite.ts";
import { errorText } from "../../lib/errors.ts";
import { nodeRecord } from "../fakes/node_record.ts";

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
      store.save([nodeRecord(0)], 1);
      saved.push(nodeRecord(0).nodeKey);
      let refused = "";
      for (let n = 1; n < 5_000 && !refused; n++) {
        try {
          store.save([nodeRecord(n)], n + 1);
          saved.push(nodeRecord(n).nodeKey);
        } catch (error) {
          refused = errorText(error);
        }
      }
      match(refused, /full|I\/O/);
    }
    using again = SqliteStore.open(path);
    deepStrictEqual(again.nodes().map(({ nodeKey }) => nodeKey).sort(), saved.sort());
    run("mount", "-o", "remount,size=4m", dir);
    again.save([nodeRecord(9_999)], 9_999);
    deepStrictEqual(again.nodes().length, saved.length + 1);
  } finally {
    run("umount", dir);
    Deno.removeSync(dir);
  }
});
