/**
 * Relays: a server that forwards UDP between the two nodes of a pair (`serve.ts`), and the client that
 * a node goes through one with.
 *
 * @example
 * const relays = new RelayClient({ nodeKey, sign, coordinator, send, clock, random, log, nodePort });
 * const path = await relays.allocate(peer, signal);
 * setLink(path.endpoint); // the peer, as far as the kernel knows
 */
export {
  RelayClient,
  type RelayClientOptions,
  type RelayPath,
  type RelayPathKind,
  type StandInLine,
} from "./client.ts";
export { RelayError } from "./exchange.ts";
export { RELAY_PATTERN } from "./messages.ts";
export {
  decodeGrant,
  encodeGrant,
  type Grant,
  GRANT_LENGTH,
  type NodePair,
  nodePair,
  verifyGrant,
} from "./grants.ts";
export type { RelayCoordinator, RelayLatencies, RelayOffer, RelayPlace } from "./places.ts";
export { type RelayWebSocket } from "./connections.ts";
export { type StandInEdges, type StandInOptions, StandIns } from "./stand_in.ts";
