/** What is acknowledged is on the disk; a full disk and a damaged page are told as such. */
import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { SqliteStore } from "../../../lib/coord/sqlite.ts";
import { errorLine } from "../../../lib/cli/command.ts";
import { FakeCoordinator, fakeNode } from "../../fakes/coordinator.ts";
import { nodeRecord } from "../../fakes/node_record.ts";

const PAGE_BYTES = 4096;

Deno.test("a damaged page shows itself at the start, with the file and what to do", () => {
  const dir = Deno.makeTempDirSync();
  try {
    const path = `${dir}/coord.db`;
    {
      using store = SqliteStore.open(path);
      store.save(Array.from({ length: 500 }, (_, n) => nodeRecord(n + 1)), 1);
    }
    const bytes = Deno.readFileSync(path);
    ok(bytes.length > 20 * PAGE_BYTES);
    bytes.fill(0xa5, 10 * PAGE_BYTES, 11 * PAGE_BYTES);
    Deno.writeFileSync(path, bytes);
    throws(() => SqliteStore.open(path), (error) => {
      match(errorLine(error), /^Error: cannot open .*coord\.db: .*(damaged|malformed).*--state/);
      return true;
    });
    deepStrictEqual(Deno.readFileSync(path), bytes, "it is left as it is");
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("what a full disk refused is not acknowledged by the next try either", async () => {
  const coord = new FakeCoordinator();
  const node = await fakeNode("a");
  await coord.register(node);
  const { save } = coord.store;
  const body = { endpoints: [{ addr: "198.51.100.1:7777", source: "stun" }] };
  const tell = async () => (await coord.call(node, "POST", "/v1/endpoints", { body })).status;
  coord.store.save = () => {
    throw new Error("database or disk is full");
  };
  deepStrictEqual([await tell(), await tell()], [503, 503]);
  deepStrictEqual(coord.store.nodes()[0]!.endpoints, []);
  coord.store.save = save;
  strictEqual(await tell(), 200);
  strictEqual(coord.store.nodes()[0]!.endpoints.length, 1);
});
