import { equal } from "node:assert/strict";
import { lazyLibc, libc } from "../../../lib/linux/libc.ts";

const own = { sanitizeResources: false }; // a library stays open

Deno.test("lazyLibc() opens each symbol once, and it is the same call", own, () => {
  const lazy = lazyLibc();
  equal(lazy.geteuid(), libc().geteuid());
  equal(lazy.geteuid, lazy.geteuid);
  equal(lazy.close(-1), -1);
});
