/** The words for peers and their states in logs and metrics; docs/LOGGING.md has them all. */
import { type NodeKey, shortKey } from "../keys.ts";
import type { PeerState } from "../peer/mod.ts";

/** How the log names a peer. */
export function peerFields({ name, nodeKey }: { name: string; nodeKey: NodeKey }) {
  return { peer: name, key: shortKey(nodeKey) };
}

/** As `gretun status` calls it. */
export function stateText(state: PeerState): "connecting" | "direct" | "relay" {
  return state === "direct" || state === "relay" ? state : "connecting";
}
