/** `gretun ping`: a peer is asked by disco, again and again, then once through the tunnel. */
import type { Clock } from "../edges.ts";
import type { PeerReport } from "./peer_report.ts";

/** Between two pings. */
const INTERVAL_MS = 1_000;
/** In the tunnel: the peer's end of the link may be set a moment later than ours. */
const TUNNEL_TRIES = 3;

export interface PingWish {
  /** By disco, at most. */
  count: number;
  /** Whether the first answer that did not come through a relay is enough. */
  untilDirect: boolean;
}

/** One ping, answered or not. */
export interface PingAnswer {
  /** On the peer's path, which `peer` tells; or in the tunnel over it. */
  via: "path" | "tunnel";
  /** Absent: no answer. */
  rtt_ms?: number;
  /** As it was when the ping was sent. */
  peer: PeerReport;
}

/** What can be done to a peer; a round trip is undefined where nothing came back in time. */
export interface PingTarget {
  /** Undefined: the peer is gone. */
  report(): PeerReport | undefined;
  /** A better path is looked for at once. */
  search(): void;
  pingPath(): Promise<number | undefined>;
  pingTunnel(): Promise<number | undefined>;
}

/** Ends when the wish is fulfilled, the peer is gone, or nobody reads on. */
export async function* pingPeer(
  target: PingTarget,
  { count, untilDirect }: PingWish,
  clock: Clock,
): AsyncGenerator<PingAnswer> {
  let peer = target.report();
  if (peer && isRelayed(peer)) target.search();
  for (let sent = 0; peer && sent < count; sent++) {
    if (sent > 0) await clock.sleep(INTERVAL_MS);
    peer = target.report();
    if (!peer) return;
    const rttMs = await target.pingPath();
    yield answer("path", peer, rttMs);
    if (untilDirect && rttMs !== undefined && !isRelayed(peer)) break;
  }
  for (let tries = 0; tries < TUNNEL_TRIES; tries++) {
    peer = target.report();
    if (!peer?.path) return;
    const rttMs = await target.pingTunnel();
    if (rttMs === undefined && tries < TUNNEL_TRIES - 1) continue;
    return yield answer("tunnel", peer, rttMs);
  }
}

/** Of one that is not there. */
// deno-lint-ignore require-await
export async function* noAnswer(peer: PeerReport): AsyncGenerator<PingAnswer> {
  yield { via: "path", peer };
}

function answer(via: PingAnswer["via"], peer: PeerReport, rttMs: number | undefined): PingAnswer {
  return { via, ...(rttMs === undefined ? {} : { rtt_ms: Math.round(rttMs * 10) / 10 }), peer };
}

export function isRelayed({ path }: PeerReport): boolean {
  return path === "relay-udp" || path === "relay-tcp";
}
