import { deepStrictEqual, equal } from "node:assert/strict";
import { lazyLibc, libc } from "../../../lib/linux/libc.ts";

const own = { sanitizeResources: false }; // a library stays open

Deno.test("lazyLibc() opens each symbol once, and it is the same call", own, () => {
  const lazy = lazyLibc();
  equal(lazy.geteuid(), libc().geteuid());
  equal(lazy.geteuid, lazy.geteuid);
  equal(lazy.close(-1), -1);
});

Deno.test("a new thread reads the errno of its first failed call, and opens nothing in between", async () => {
  const url = new URL("../../fakes/errno_worker.ts", import.meta.url);
  const worker = new Worker(url, { type: "module" });
  const said = await new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
  worker.terminate();
  const EBADF = 9;
  deepStrictEqual(said, { errno: EBADF, opened: 0 });
});
