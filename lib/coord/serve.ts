/** What a program needs to be a coordinator, or a relay of one. */
import type { Random } from "../edges.ts";
import { publicKeyOf, type Sign, signer } from "../ed25519.ts";
import { KEY_LENGTH, type NodeKey, nodeKeyFromBytes } from "../keys.ts";
import type { Store } from "./store.ts";

export { Admin, type AdminOptions } from "./admin.ts";
export { type HttpHandler, HttpServer } from "./http_server.ts";
export { poolCollisions } from "./pool_collisions.ts";
export { RelayDirectory } from "./relays.ts";
export { RelayRole } from "./relay_role.ts";
export { SqliteStore } from "./sqlite.ts";
export type { Store };

/** Of the coordinator, or of a relay of its own: made once, kept in the state. */
export async function ownKey(
  store: Store,
  random: Random,
): Promise<{ publicKey: NodeKey; sign: Sign }> {
  const seed = store.seed("relay", random(KEY_LENGTH));
  return { publicKey: nodeKeyFromBytes(publicKeyOf(seed)), sign: await signer(seed) };
}
