/** Where settings come from: flags, environment, file. */
import { deepStrictEqual, throws } from "node:assert/strict";
import { UsageError } from "../../../lib/errors.ts";
import { readSettings } from "../../../lib/cli/settings.ts";

const SPECS = {
  coordinator: { type: "string", required: true, help: "" },
  "fou-port": { type: "integer", min: 1, max: 65535, default: 7777, help: "" },
  "stun-server": { type: "list", help: "" },
  verbose: { type: "boolean", short: "v", help: "" },
} as const;

const file = (text: string) => ({ path: "/etc/gretun/up.conf", text });

Deno.test("readSettings() prefers flags to the environment and that to the file", () => {
  const sources = {
    environment: { GRETUN_FOU_PORT: "7001", GRETUN_STUN_SERVER: "a:1,b:2", GRETUN_VERBOSE: "" },
    file: file("coordinator = http://file:8443\nfou-port 7002\nstun-server c:3\nverbose\n"),
  };
  deepStrictEqual({ ...readSettings([], SPECS, sources) }, {
    coordinator: "http://file:8443",
    "fou-port": 7001,
    "stun-server": ["a:1", "b:2"],
    verbose: true,
  });
  const args = ["--fou-port=7003", "--stun-server", "d:4", "--coordinator", "http://flag:8443"];
  deepStrictEqual({ ...readSettings(args, SPECS, sources) }, {
    coordinator: "http://flag:8443",
    "fou-port": 7003,
    "stun-server": ["d:4"],
    verbose: true,
  });
});

Deno.test("readSettings() tells every problem of the file with path, line and reason", () => {
  const text = "# comment\ncoordinator http://x\nfou-prt 7\nfou-port 70000\n???\n";
  throws(() => readSettings([], SPECS, { file: file(text) }), (error: unknown) => {
    deepStrictEqual(
      (error as UsageError).message.split("; ").map((each) => each.split(": ")[0]),
      [3, 4, 5].map((line) => `/etc/gretun/up.conf:${line}`),
    );
    return error instanceof UsageError;
  });
});

Deno.test("readSettings() tells a few problems of a file that is something else, and how many there are", () => {
  throws(
    () => readSettings([], SPECS, { file: file("???\n".repeat(100)) }),
    /^UsageError: \/etc\/gretun\/up.conf:1: is not KEY VALUE; .*up.conf:5: is not KEY VALUE; and 95 more$/,
  );
});

Deno.test("readSettings() names the variable whose value is wrong", () => {
  throws(
    () => readSettings([], SPECS, { environment: { GRETUN_FOU_PORT: "x" } }),
    /^UsageError: GRETUN_FOU_PORT "x"/,
  );
});
