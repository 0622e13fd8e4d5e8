/**
 * When a spoke says hello, sends keepalives, and gives a session up: pure, time is an argument.
 * A session, and with it the link, stays while a new one is asked for.
 */
import { backoffMs } from "../../retry.ts";

/** Between tries that are not answered. */
const RETRY = { minMs: 400, maxMs: 15_000 };
/** For an answer that both ends compute for: slow machines take their time. */
const WELCOME_WAIT = { minMs: 2_000, maxMs: RETRY.maxMs };
/** An unanswered keepalive is repeated so fast, so often, before the hub counts as lost. */
const KEEPALIVE_RETRY_MS = 700;
const MAX_LOST_KEEPALIVES = 3;
/** Several changes of addresses, and news of them, come together. */
const MIN_HELLO_GAP_MS = 100;

const NO_TRIES = { tries: 0, authTries: 0 } as const;

export interface Spoke {
  /** "lost": there was a session that the hub does not know, or does not answer in. */
  state: "connecting" | "up" | "lost";
  /** What the hub was asked for and has not answered. */
  waiting: "nothing" | "challenge" | "welcome";
  hasSession: boolean;
  keepaliveMs: number;
  reauthMs: number;
  /** Hellos, and authentications among them, since something was answered. */
  tries: number;
  authTries: number;
  lostKeepalives: number;
  sentHelloMs: number;
  authenticatedMs: number;
  nextMs: number;
  /** 0.75..1.25, so that the spokes of a hub do not come in step. */
  jitter: number;
}

export type SpokeEvent =
  | { kind: "start"; nowMs: number }
  | { kind: "challenge"; nowMs: number }
  | { kind: "welcome"; nowMs: number; keepaliveMs: number; reauthMs: number }
  /** The hub answered, and not with a session. */
  | { kind: "refused"; nowMs: number }
  | { kind: "alive"; nowMs: number; moved: boolean }
  | { kind: "reset"; nowMs: number }
  /** Addresses or routes of this host changed. */
  | { kind: "moved"; nowMs: number }
  /** SIGUSR1 or --reauth-only. */
  | { kind: "reauth"; nowMs: number }
  | { kind: "tick"; nowMs: number };

export type SpokeEffect =
  /** `tries`: before this one, without an answer. */
  | { kind: "send-hello"; tries: number }
  | { kind: "send-auth" }
  | { kind: "send-keepalive" }
  | { kind: "state-changed"; from: Spoke["state"]; to: Spoke["state"] };

export function newSpoke(jitter: number): Spoke {
  return {
    ...{ state: "connecting", waiting: "nothing", hasSession: false },
    ...{ keepaliveMs: 0, reauthMs: 0, ...NO_TRIES, lostKeepalives: 0 },
    ...{ sentHelloMs: -Infinity, authenticatedMs: 0, nextMs: Infinity, jitter },
  };
}

export function nextSpokeTickMs(spoke: Spoke): number {
  return spoke.nextMs;
}

export function stepSpoke(spoke: Spoke, event: SpokeEvent): [Spoke, SpokeEffect[]] {
  const [next, effects] = react(spoke, event);
  if (next.state === spoke.state) return [next, effects];
  return [next, [...effects, { kind: "state-changed", from: spoke.state, to: next.state }]];
}

function react(spoke: Spoke, event: SpokeEvent): [Spoke, SpokeEffect[]] {
  const { nowMs } = event;
  switch (event.kind) {
    case "start":
      return hello({ ...spoke, ...NO_TRIES }, nowMs);
    case "challenge":
      if (spoke.waiting !== "challenge") return [spoke, []];
      return auth(spoke, nowMs);
    case "welcome":
      return welcome(spoke, event);
    case "refused":
      return [{ ...spoke, waiting: "nothing", nextMs: nowMs + RETRY.maxMs * spoke.jitter }, []];
    case "alive":
      return alive(spoke, event);
    case "reset":
      if (!spoke.hasSession) return [spoke, []];
      return soonHello({ ...spoke, state: "lost", hasSession: false, ...NO_TRIES }, nowMs);
    case "moved":
    case "reauth":
      return soonHello({ ...spoke, ...NO_TRIES }, nowMs);
    case "tick":
      return nowMs < spoke.nextMs ? [spoke, []] : tick(spoke, nowMs);
    default:
      return event satisfies never;
  }
}

function welcome(
  spoke: Spoke,
  { nowMs, keepaliveMs, reauthMs }: SpokeEvent & { kind: "welcome" },
): [Spoke, SpokeEffect[]] {
  return [{
    ...spoke,
    ...{ state: "up", waiting: "nothing", hasSession: true, keepaliveMs, reauthMs },
    ...{ ...NO_TRIES, lostKeepalives: 0, authenticatedMs: nowMs },
    nextMs: nowMs + Math.min(keepaliveMs || reauthMs, reauthMs),
  }, []];
}

function alive(
  spoke: Spoke,
  { nowMs, moved }: SpokeEvent & { kind: "alive" },
): [Spoke, SpokeEffect[]] {
  if (!spoke.hasSession) return [spoke, []];
  const heard = { ...spoke, state: "up" as const, lostKeepalives: 0 };
  if (moved) return soonHello({ ...heard, ...NO_TRIES }, nowMs);
  if (spoke.waiting !== "nothing") return [heard, []];
  return [{ ...heard, nextMs: nowMs + (spoke.keepaliveMs || spoke.reauthMs) }, []];
}

function tick(spoke: Spoke, nowMs: number): [Spoke, SpokeEffect[]] {
  if (spoke.waiting !== "nothing" || !spoke.hasSession) return hello(spoke, nowMs);
  if (nowMs >= spoke.authenticatedMs + spoke.reauthMs) {
    return hello({ ...spoke, ...NO_TRIES }, nowMs);
  }
  if (spoke.lostKeepalives >= MAX_LOST_KEEPALIVES) {
    return hello({ ...spoke, state: "lost", ...NO_TRIES }, nowMs);
  }
  const lostKeepalives = spoke.lostKeepalives + 1;
  const next = { ...spoke, lostKeepalives, nextMs: nowMs + KEEPALIVE_RETRY_MS };
  return [next, [{ kind: "send-keepalive" }]];
}

function soonHello(spoke: Spoke, nowMs: number): [Spoke, SpokeEffect[]] {
  const earliestMs = spoke.sentHelloMs + MIN_HELLO_GAP_MS;
  if (nowMs >= earliestMs) return hello(spoke, nowMs);
  return [{ ...spoke, waiting: "challenge", nextMs: earliestMs }, []];
}

function hello(spoke: Spoke, nowMs: number): [Spoke, SpokeEffect[]] {
  const next: Spoke = {
    ...spoke,
    waiting: "challenge",
    tries: spoke.tries + 1,
    sentHelloMs: nowMs,
    nextMs: nowMs + backoffMs(RETRY, spoke.tries) * spoke.jitter,
  };
  return [next, [{ kind: "send-hello", tries: spoke.tries }]];
}

function auth(spoke: Spoke, nowMs: number): [Spoke, SpokeEffect[]] {
  const next: Spoke = {
    ...spoke,
    waiting: "welcome",
    authTries: spoke.authTries + 1,
    nextMs: nowMs + backoffMs(WELCOME_WAIT, spoke.authTries) * spoke.jitter,
  };
  return [next, [{ kind: "send-auth" }]];
}
