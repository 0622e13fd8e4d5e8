/** Relays as the coordinator tells nodes of them. */
import type { NodeKey } from "../keys.ts";

/** Round trips to relays in ms, by the relay's key. */
export type RelayLatencies = ReadonlyMap<NodeKey, number>;

/** Where a relay is. Its public key is its name. */
export interface RelayPlace {
  relayKey: NodeKey;
  /** "host:port"; an empty host is the one that the coordinator was reached at. */
  udp: string;
  /** URL; empty: `/v1/relay/ws` under the coordinator's own. */
  ws: string;
}

/** What a node needs to go through a relay to a peer. */
export interface RelayOffer extends RelayPlace {
  /** See grants.ts. */
  grant: Uint8Array;
  /** RFC 3339. */
  expiresAt: string;
}

/** The coordinator's calls that a relay client makes, with addresses filled in. */
export interface RelayCoordinator {
  relays(measured: RelayLatencies, signal: AbortSignal): Promise<RelayPlace[]>;
  relay(peer: NodeKey, measured: RelayLatencies, signal: AbortSignal): Promise<RelayOffer>;
}
