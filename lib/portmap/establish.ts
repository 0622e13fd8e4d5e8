/** From nothing to a mapping: all protocols are asked at once, the best that answers is used. */
import { errorText } from "../errors.ts";
import { NoPortMappingError } from "./errors.ts";
import { discoverNatPmp } from "./natpmp_mapper.ts";
import { discoverPcp } from "./pcp_mapper.ts";
import {
  type Discover,
  type GatewayAccess,
  type Lease,
  type MapRequest,
  type PortMapper,
  type PortMapProtocol,
  PROTOCOLS,
} from "./protocol.ts";

/** How long a better protocol is waited for when a worse one has answered. */
const PREFERENCE_MS = 1000;

export const DISCOVER: Record<PortMapProtocol, Discover> = {
  pcp: discoverPcp,
  natpmp: discoverNatPmp,
  // Its XML would cost each start a few milliseconds.
  upnp: async (access, signal) => {
    const { discoverUpnp } = await import("./upnp_discovery.ts");
    return await discoverUpnp(access, signal);
  },
};

export type Attempt =
  | { kind: "asking" }
  | { kind: "found"; mapper: PortMapper }
  | { kind: "failed"; why: string };
/** Those that are tried. */
export type Attempts = Map<PortMapProtocol, Attempt>;

export interface Established {
  mapper: PortMapper;
  lease: Lease;
}

/** What to do after `waitedMs`: use this one, wait for more answers, or give up. */
export function choose(attempts: Attempts, waitedMs: number): PortMapper | "wait" | "none" {
  let isAsking = false;
  for (const protocol of PROTOCOLS) {
    const attempt = attempts.get(protocol);
    if (attempt?.kind === "found") return attempt.mapper;
    if (attempt?.kind === "asking") isAsking = true;
    if (isAsking && waitedMs < PREFERENCE_MS) return "wait";
  }
  return isAsking ? "wait" : "none";
}

/** Asks by all protocols; each attempt in the map changes when its promise resolves. */
export function discoverAll(
  access: GatewayAccess,
  protocols: readonly PortMapProtocol[],
  signal: AbortSignal,
): { attempts: Attempts; ends: Map<PortMapProtocol, Promise<void>> } {
  const attempts: Attempts = new Map(protocols.map((each) => [each, { kind: "asking" }]));
  const discover = async (protocol: PortMapProtocol) => {
    try {
      const mapper = await DISCOVER[protocol](access, signal);
      attempts.set(protocol, mapper ? { kind: "found", mapper } : failed("no answer"));
    } catch (error) {
      attempts.set(protocol, failed(errorText(error)));
    }
  };
  return { attempts, ends: new Map(protocols.map((each) => [each, discover(each)])) };
}

const failed = (why: string): Attempt => ({ kind: "failed", why });

/** Throws {@link NoPortMappingError}, within 3 s where nobody answers; and the signal's reason. */
export async function establish(
  access: GatewayAccess,
  protocols: readonly PortMapProtocol[],
  request: MapRequest,
  signal: AbortSignal,
): Promise<Established> {
  const chosen = new AbortController();
  const within = AbortSignal.any([chosen.signal, signal]);
  const { attempts, ends } = discoverAll(access, protocols, within);
  try {
    return await mapByBest(access, attempts, ends, request, within);
  } finally {
    chosen.abort();
    await Promise.all(ends.values());
  }
}

async function mapByBest(
  access: GatewayAccess,
  attempts: Attempts,
  ends: ReadonlyMap<PortMapProtocol, Promise<void>>,
  request: MapRequest,
  signal: AbortSignal,
): Promise<Established> {
  const { clock } = access;
  const startMs = clock.nowMs();
  const preferenceEnds = clock.sleep(PREFERENCE_MS, signal).catch(() => {});
  while (true) {
    signal.throwIfAborted();
    const waitedMs = clock.nowMs() - startMs;
    const choice = choose(attempts, waitedMs);
    if (choice === "none") throw new NoPortMappingError(access.gateway, reasons(attempts));
    if (choice === "wait") {
      const asking = [...ends].filter(([each]) => attempts.get(each)?.kind === "asking")
        .map(([, end]) => end);
      await Promise.race(waitedMs < PREFERENCE_MS ? [...asking, preferenceEnds] : asking);
      continue;
    }
    try {
      return { mapper: choice, lease: await choice.map(request, signal) };
    } catch (error) {
      signal.throwIfAborted();
      attempts.set(choice.protocol, failed(errorText(error)));
    }
  }
}

function reasons(attempts: Attempts): Partial<Record<PortMapProtocol, string>> {
  const all = [...attempts].map(([protocol, attempt]) =>
    [protocol, attempt.kind === "failed" ? attempt.why : ""] as const
  );
  return Object.fromEntries(all);
}
