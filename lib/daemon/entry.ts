/** One peer as the daemon keeps it: its record, its state, and what goes with its link. */
import type { Diversion } from "./detours.ts";
import { type Endpoint, equalEndpoints, hostCidr, type Ip } from "../addr.ts";
import type { PeerRecord } from "../coord/api.ts";
import type { InnerLimits, WantedLink } from "../dataplane/mod.ts";
import { type Inner, pairAddress } from "../links/mod.ts";
import type { Peer, SeenIds } from "../peer/mod.ts";
import type { RelayPath } from "../relay/mod.ts";
import type { Trouble } from "../trouble.ts";
import type { KeysOfSession, PairSession } from "./pair_session.ts";
import type { GuessPeer } from "./port_guesser.ts";
import type { ProbedPath } from "./probed_path.ts";

export interface Entry {
  record: PeerRecord;
  peer: Peer;
  /** When it wants its next tick. */
  dueMs: number;
  boxKey: Uint8Array<ArrayBuffer>;
  session: PairSession;
  /** Those that its link has. */
  linkKeys?: KeysOfSession;
  seenPings: SeenIds;
  guessed: GuessPeer;
  relay?: RelayPath;
  /** When a sealed message of the peer's last came, by whatever way. */
  heardMs?: number;
  /** When its present path was chosen. */
  pathSinceMs?: number;
  /** Of the link, at the last look. */
  rxPackets: number;
  txPackets: number;
  /** When pings last looked whether data gets through. */
  txPacketsChecked?: number;
  /** Since when data is sent into it, and none comes out. */
  unansweredMs?: number;
  ifname?: string;
  mtu?: number;
  /** The link as it was set last, and what is known of the path that it takes. */
  wanted?: WantedLink;
  probed?: ProbedPath;
  /** When its path was last lost. */
  lostMs?: number;
  /** It has no path, since it was last heard. */
  away?: Trouble;
  /** Its link cannot be set. */
  linkTrouble?: Trouble;
  /** By which device packets to the peer leave, when it is not its link. */
  diverted?: Diversion | undefined;
  /** Why it cannot be, and what to do. */
  linkFinding?: { text: string; remedy: string };
}

export function isRelayed({ relay }: Entry, endpoint: Endpoint): boolean {
  return relay !== undefined && equalEndpoints(relay.endpoint, endpoint);
}

/** What goes into the peer's link, and comes out of it: it has its own address, and reaches ours. */
export function innerOf({ tunnelIp }: PeerRecord, own: Ip): Inner & InnerLimits {
  return {
    ...{ addresses: [pairAddress(own, tunnelIp)], routes: [] },
    ...{ sources: [hostCidr(tunnelIp)], destinations: [hostCidr(own)] },
  };
}
