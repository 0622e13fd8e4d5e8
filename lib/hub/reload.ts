/** What a running hub takes of a configuration that is read again, and what needs a new start. */
import { toHex } from "../bytes.ts";
import { GretunError } from "../errors.ts";
import type { HubOptions } from "./hub_core.ts";

type Setting = Exclude<keyof HubOptions, "metrics">;

/** As users know them. Links, their addresses and what sessions are derived from stand still. */
const FIXED = {
  protocol: "protocol",
  dataPlane: "data-plane",
  port: "port",
  bind: "bind",
  ifnamePattern: "iface",
  mtu: "mtu",
  encapCsum: "encap-csum",
  allowFragments: "allow-fragments",
  clientsDir: "clients",
  stateDir: "state-dir",
  address: "address",
  ownSeed: "key-file",
  secret: "secret-file",
  serverId: "id",
} as const;

const LIVE = {
  publicEndpoints: "public-address",
  keepaliveMs: "keepalive",
  idleMs: "idle",
  lifetimeMs: "lifetime",
  encrypt: "encrypt",
  replyOnAuthOk: "reply-on-auth-ok",
  maxTimeDiscrepancyS: "max-time-discrepancy",
  program: "program",
  programGraceMs: "program-grace",
  programMustSucceed: "program-must-succeed",
  onUp: "on-up",
  onDown: "on-down",
} as const satisfies Record<Exclude<Setting, keyof typeof FIXED>, string>;

/** Flags that differ and hold at once; throws `GretunError` for those that need a new start. */
export function liveChanges(running: HubOptions, next: HubOptions): string[] {
  const changed = (flags: Record<string, string>) =>
    Object.keys(flags).filter((key) => !equalValues(running[key as Setting], next[key as Setting]))
      .map((key) => flags[key]!);
  const fixed = changed(FIXED);
  if (fixed.length === 0) return changed(LIVE);
  throw new GretunError(
    `${fixed.join(", ")} cannot change while the hub runs`,
    "Restart the hub, or take it back and send SIGHUP again",
  );
}

/** Of plain values, arrays, objects and bytes. */
export function equalValues(a: unknown, b: unknown): boolean {
  return JSON.stringify(a, bytesAsText) === JSON.stringify(b, bytesAsText);
}

function bytesAsText(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? toHex(value) : value;
}
