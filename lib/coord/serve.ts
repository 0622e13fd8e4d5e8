/** What a program needs to be a coordinator, or a relay of one. */
import type { Random } from "../edges.ts";
import { agreement, publicKeyOf, signer } from "../ed25519.ts";
import { KEY_LENGTH, nodeKeyFromBytes } from "../keys.ts";
import type { CoordinatorKey } from "./auth.ts";
import type { Store } from "./store.ts";

export { Admin, type AdminOptions } from "./admin.ts";
export { type HttpEvent, type HttpHandler, HttpServer } from "./http_server.ts";
export { CoordMetrics } from "./metrics.ts";
export { PolicyDesk, readPolicyFile } from "./policy_desk.ts";
export { poolCollisions } from "./pool_collisions.ts";
export { RelayDirectory } from "./relays.ts";
export { RelayRole } from "./relay_role.ts";
export { SqliteStore } from "./sqlite.ts";
export type { Store };

/** The key in the store: of a relay of its own, and of coordinators of before. */
export function storedSeed(store: Store, random: Random): Uint8Array {
  return store.seed("relay", random(KEY_LENGTH));
}

export async function signingKey(seed: Uint8Array): Promise<CoordinatorKey> {
  const [sign, agree] = await Promise.all([signer(seed), agreement(seed)]);
  return { publicKey: nodeKeyFromBytes(publicKeyOf(seed)), sign, agree };
}
