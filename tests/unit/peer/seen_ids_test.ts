import { strictEqual } from "node:assert/strict";
import { SeenIds } from "../../../lib/peer/seen_ids.ts";

const id = (n: number) => new Uint8Array([n >> 8, n & 0xff, 0]);

Deno.test("SeenIds.add() knows an id again among the last thousand", () => {
  const seen = new SeenIds();
  for (let n = 0; n < 3_000; n++) strictEqual(seen.add(id(n)), true);
  for (const n of [2_000, 2_500, 2_999]) strictEqual(seen.add(id(n)), false, `${n}`);
  strictEqual(seen.add(id(0)), true, "long forgotten: what it costs is bounded");
});
