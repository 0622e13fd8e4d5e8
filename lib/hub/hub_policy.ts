/**
 * What becomes of one client of a hub: pure, time is an argument. A client has a link from its
 * first authentication until it says good-bye, is revoked, is silent for too long or its
 * authentication is too old. Its packets go to where it last authenticated from.
 */
import { type Endpoint, equalEndpoints } from "../addr.ts";

export interface HubClientLimits {
  /** Without a sign of life for so long the link goes; 0: never. */
  idleMs: number;
  /** Without a new authentication for so long the link goes; 0: never. */
  lifetimeMs: number;
}

export interface HubClient {
  limits: HubClientLimits;
  /** Where its packets go; absent while it has no link. */
  endpoint?: Endpoint;
  heardMs: number;
  authenticatedMs: number;
}

export type HubClientEvent =
  | { kind: "authenticated"; nowMs: number; from: Endpoint }
  /** A link of an earlier run, which still works. */
  | { kind: "adopted"; nowMs: number; endpoint: Endpoint }
  /** A packet that only this client can have sent. */
  | { kind: "heard"; nowMs: number }
  | { kind: "bye" }
  | { kind: "revoked" }
  | { kind: "link-failed" }
  | { kind: "program-failed" }
  | { kind: "tick"; nowMs: number };

export type DownReason =
  | "bye"
  | "revoked"
  | "silent"
  | "expired"
  | "link-failed"
  | "program-failed";

export type HubClientEffect =
  | { kind: "set-link"; endpoint: Endpoint; change: "new" | "moved" | "renewed" }
  | { kind: "remove-link"; reason: DownReason };

export function newHubClient(limits: HubClientLimits): HubClient {
  return { limits, heardMs: 0, authenticatedMs: 0 };
}

export function stepHubClient(
  client: HubClient,
  event: HubClientEvent,
): [HubClient, HubClientEffect[]] {
  switch (event.kind) {
    case "authenticated":
      return authenticated(client, event.from, event.nowMs);
    case "adopted": {
      const { endpoint, nowMs } = event;
      return [{ ...client, endpoint, heardMs: nowMs, authenticatedMs: nowMs }, []];
    }
    case "heard":
      return [{ ...client, heardMs: event.nowMs }, []];
    case "bye":
    case "revoked":
    case "link-failed":
    case "program-failed":
      return down(client, event.kind);
    case "tick":
      return tick(client, event.nowMs);
    default:
      return event satisfies never;
  }
}

/** Infinity: nothing to wait for. */
export function nextHubClientTickMs(client: HubClient): number {
  if (!client.endpoint) return Infinity;
  const { idleMs, lifetimeMs } = client.limits;
  return Math.min(
    idleMs > 0 ? client.heardMs + idleMs : Infinity,
    lifetimeMs > 0 ? client.authenticatedMs + lifetimeMs : Infinity,
  );
}

function authenticated(
  client: HubClient,
  from: Endpoint,
  nowMs: number,
): [HubClient, HubClientEffect[]] {
  const known = client.endpoint;
  const change = !known ? "new" : equalEndpoints(known, from) ? "renewed" : "moved";
  const next = { ...client, endpoint: from, heardMs: nowMs, authenticatedMs: nowMs };
  return [next, [{ kind: "set-link", endpoint: from, change }]];
}

function tick(client: HubClient, nowMs: number): [HubClient, HubClientEffect[]] {
  if (!client.endpoint || nowMs < nextHubClientTickMs(client)) return [client, []];
  const { idleMs } = client.limits;
  return down(client, idleMs > 0 && nowMs >= client.heardMs + idleMs ? "silent" : "expired");
}

function down(client: HubClient, reason: DownReason): [HubClient, HubClientEffect[]] {
  if (!client.endpoint) return [client, []];
  const { endpoint: _, ...rest } = client;
  return [rest, [{ kind: "remove-link", reason }]];
}
