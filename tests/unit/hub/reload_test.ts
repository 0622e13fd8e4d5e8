/** What a running hub takes of a changed configuration. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseIp } from "../../../lib/addr.ts";
import { GretunError } from "../../../lib/errors.ts";
import { HubMetrics, type HubOptions, liveChanges } from "../../../lib/hub/mod.ts";

const RUNNING: HubOptions = {
  protocol: "gretun",
  dataPlane: "auto",
  port: 7788,
  ifnamePattern: "hub%d",
  encapCsum: "auto",
  allowFragments: false,
  clientsDir: "/etc/gretun/clients",
  stateDir: "/run/gretun",
  address: parseIp("10.90.0.1"),
  ownSeed: new Uint8Array(32),
  publicEndpoints: [],
  keepaliveMs: 25_000,
  idleMs: 180_000,
  lifetimeMs: 0,
  encrypt: true,
  replyOnAuthOk: false,
  maxTimeDiscrepancyS: 120,
  program: ["bird"],
  programGraceMs: 5000,
  programMustSucceed: false,
  metrics: new HubMetrics(),
};

const CASES: [string, Partial<HubOptions>, string[] | RegExp][] = [
  ["nothing", { ownSeed: new Uint8Array(32), program: ["bird"] }, []],
  ["times", { keepaliveMs: 10_000, idleMs: 60_000 }, ["keepalive", "idle"]],
  ["a program's argument", { program: ["bird", "-f"] }, ["program"]],
  ["a script that was not there", { onUp: "true" }, ["on-up"]],
  ["the port", { port: 7789, keepaliveMs: 1000 }, /^port cannot change while the hub runs/],
  ["a key's byte", { ownSeed: new Uint8Array(32).fill(1) }, /^key-file cannot change/],
  ["plane and MTU", { dataPlane: "tun", mtu: 1400 }, /^data-plane, mtu cannot change/],
];
for (const [name, next, expected] of CASES) {
  Deno.test(`liveChanges(): ${name}`, () => {
    const changes = () => liveChanges(RUNNING, { ...RUNNING, ...next });
    if (Array.isArray(expected)) return deepStrictEqual(changes(), expected);
    throws(changes, (error) => {
      strictEqual(error instanceof GretunError && expected.test(error.message), true, `${error}`);
      return true;
    });
  });
}
