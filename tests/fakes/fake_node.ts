/** A node that signs as ours do. Without a clock of tests, which keeps a benchmark from ending. */
import type { Sign } from "../../lib/ed25519.ts";
import { systemRandom } from "../../lib/edges.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../../lib/keys.ts";

export interface FakeNode {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
  name: string;
  sign: Sign;
}

export async function fakeNode(name: string): Promise<FakeNode> {
  const { publicKey, privateKey } = await crypto.subtle.generateKey("Ed25519", true, [
    "sign",
    "verify",
  ]) as CryptoKeyPair;
  return {
    nodeKey: nodeKeyFromBytes(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey))),
    discoKey: discoKeyFromBytes(systemRandom(32)),
    name,
    sign: async (bytes) => new Uint8Array(await crypto.subtle.sign("Ed25519", privateKey, bytes)),
  };
}
