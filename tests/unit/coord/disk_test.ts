/** What is acknowledged is on the disk; a full disk and a damaged page are told as such. */
import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { parseIp } from "../../../lib/addr.ts";
import type { NodeRecord } from "../../../lib/coord/api.ts";
import { SqliteStore } from "../../../lib/coord/sqlite.ts";
import { errorLine } from "../../../lib/cli/command.ts";
import { discoKeyFromBytes, nodeKeyFromBytes } from "../../../lib/keys.ts";
import { FakeCoordinator, fakeNode } from "../../fakes/coordinator.ts";

const PAGE_BYTES = 4096;

function record(n: number): NodeRecord {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return {
    ...{ nodeKey: nodeKeyFromBytes(key), discoKey: discoKeyFromBytes(key), name: `n${n}` },
    ...{ tunnelIp: parseIp(`100.64.${n >> 8}.${n & 255}`), endpoints: [], listed: true },
    ...{ updatedMs: 1, leaseEndsMs: 1 },
  };
}

Deno.test("a damaged page shows itself at the start, with the file and what to do", () => {
  const dir = Deno.makeTempDirSync();
  try {
    const path = `${dir}/coord.db`;
    {
      using store = SqliteStore.open(path);
      store.save(Array.from({ length: 500 }, (_, n) => record(n + 1)), 1);
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
