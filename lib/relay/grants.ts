/**
 * A grant: the coordinator's word that two nodes may use a relay until a time. 168 bytes, big endian:
 *
 *     0    1   version, 1
 *     1    3   zero
 *     4    4   end, Unix seconds
 *     8    32  the relay's Ed25519 public key
 *     40   32  node key of the one node, which sorts first
 *     72   32  node key of the other
 *     104  64  Ed25519 signature of the coordinator over a context string and bytes 0..103
 */
import { concatBytes, Reader, Writer } from "../bytes.ts";
import { type Sign, SIGNATURE_LENGTH, verify } from "../ed25519.ts";
import { KEY_LENGTH, keyBytes, type NodeKey, nodeKeyFromBytes } from "../keys.ts";

export const GRANT_LENGTH = 168;
const SIGNED_LENGTH = GRANT_LENGTH - SIGNATURE_LENGTH;
const VERSION = 1;
/** So that a signature made for a grant can be taken for nothing else. */
const CONTEXT = new TextEncoder().encode("gretun relay grant\n");

/** Two node keys, the one that sorts first before the other. */
export type NodePair = readonly [NodeKey, NodeKey];

export interface Grant {
  relay: NodeKey;
  nodes: NodePair;
  endsSeconds: number;
}

/** Bytes are no grant; the message says why. */
export class GrantFormatError extends Error {
  override name = "GrantFormatError";
}

/** Throws `RangeError` when both are one node. */
export function nodePair(a: NodeKey, b: NodeKey): NodePair {
  if (a === b) throw new RangeError("a node needs no relay to itself");
  return a < b ? [a, b] : [b, a];
}

export async function encodeGrant(grant: Grant, sign: Sign): Promise<Uint8Array<ArrayBuffer>> {
  const [first, second] = nodePair(...grant.nodes);
  const body = new Writer("network", SIGNED_LENGTH).u8(VERSION).zeros(3).u32(grant.endsSeconds)
    .bytes(keyBytes(grant.relay)).bytes(keyBytes(first)).bytes(keyBytes(second)).finish();
  return concatBytes(body, await sign(concatBytes(CONTEXT, body)));
}

/** What it says, not whether it is genuine. Throws {@link GrantFormatError}. */
export function decodeGrant(bytes: Uint8Array): Grant {
  if (bytes.length !== GRANT_LENGTH) {
    throw new GrantFormatError(`grant is ${bytes.length} bytes: want ${GRANT_LENGTH}`);
  }
  const reader = new Reader(bytes, "network");
  const version = reader.u8();
  if (version !== VERSION) throw new GrantFormatError(`grant of version ${version}`);
  const endsSeconds = reader.skip(3).u32();
  const key = () => nodeKeyFromBytes(reader.bytes(KEY_LENGTH));
  const [relay, first, second] = [key(), key(), key()];
  if (first >= second) throw new GrantFormatError("grant whose nodes are not in order");
  return { relay, nodes: [first, second], endsSeconds };
}

/** Whether `signer`, the coordinator, made it. */
export function verifyGrant(bytes: Uint8Array, signer: NodeKey): Promise<boolean> {
  const signature = bytes.slice(SIGNED_LENGTH);
  return verify(
    keyBytes(signer),
    signature,
    concatBytes(CONTEXT, bytes.subarray(0, SIGNED_LENGTH)),
  );
}
