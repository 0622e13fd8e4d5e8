/** One daemon a port, whichever it is: the refusal names the one that has it. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { lockPort, portHolder } from "../../../lib/links/mod.ts";
import { memoryLocks } from "../../fakes/locks.ts";

const ROLES = ["up", "hub", "spoke"] as const;

Deno.test("up, hub and spoke exclude each other on a port; the first is named", () => {
  for (const role of ROLES) {
    const locks = memoryLocks(12);
    using lock = lockPort(locks, { port: 7777, role, flag: "--port" });
    ok(lock);
    for (const second of ROLES) {
      throws(() => lockPort(locks, { port: 7777, role: second, flag: "--fou-port" }), {
        name: "PortLockedError",
        message: `${
          second === role ? "another" : "a running"
        } gretun ${role} (pid 12) uses port 7777`,
        hint: "Stop it first, or choose another port with --fou-port",
      });
      using elsewhere = lockPort(locks, { port: 7778, role: second, flag: "--port" });
      ok(elsewhere);
    }
  }
});

Deno.test("portHolder() knows a daemon for as long as it runs", () => {
  const locks = memoryLocks(12);
  {
    using _lock = lockPort(locks, { port: 7777, role: "hub", flag: "--port" });
    deepStrictEqual(portHolder(locks, 7777), { role: "hub", pid: 12 });
    strictEqual(portHolder(locks, 777), undefined);
  }
  strictEqual(portHolder(locks, 7777), undefined);
});
