/**
 * The node's two key pairs, and their text in `keys.json`: four base64 strings, `node_priv` (64 bytes:
 * Ed25519 seed and public key, RFC 8032), `node_pub`, `disco_priv` (X25519 scalar), `disco_pub`.
 */
import { concatBytes, equalBytes, fromBase64, toBase64 } from "../bytes.ts";
import { publicKeyFrom } from "../ed25519.ts";
import type { Random } from "../edges.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  KEY_LENGTH,
  keyBase64,
  keyBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../keys.ts";

export interface Identity {
  nodeKey: NodeKey;
  /** Ed25519 seed, 32 bytes. */
  nodeSeed: Uint8Array<ArrayBuffer>;
  discoKey: DiscoKey;
  /** X25519 scalar, 32 bytes. */
  discoPrivate: Uint8Array<ArrayBuffer>;
}

export async function newIdentity(random: Random): Promise<Identity> {
  return await identityFrom(random(KEY_LENGTH), random(KEY_LENGTH));
}

async function identityFrom(
  nodeSeed: Uint8Array<ArrayBuffer>,
  discoPrivate: Uint8Array<ArrayBuffer>,
): Promise<Identity> {
  const [node, disco] = await Promise.all([
    publicKeyFrom("Ed25519", nodeSeed),
    publicKeyFrom("X25519", discoPrivate),
  ]);
  const [nodeKey, discoKey] = [nodeKeyFromBytes(node), discoKeyFromBytes(disco)];
  return { nodeSeed, nodeKey, discoPrivate, discoKey };
}

export function formatKeys({ nodeSeed, nodeKey, discoPrivate, discoKey }: Identity): string {
  const keys = {
    node_priv: toBase64(concatBytes(nodeSeed, keyBytes(nodeKey))),
    node_pub: keyBase64(nodeKey),
    disco_priv: toBase64(discoPrivate),
    disco_pub: keyBase64(discoKey),
  };
  return JSON.stringify(keys, null, 2) + "\n";
}

/** Throws `SyntaxError` or `RangeError`, never with key material in the message. */
export async function parseKeys(text: string): Promise<Identity> {
  const keys = parseObject(text);
  const nodePrivate = field(keys, "node_priv", 2 * KEY_LENGTH);
  const identity = await identityFrom(
    nodePrivate.slice(0, KEY_LENGTH),
    field(keys, "disco_priv", KEY_LENGTH),
  );
  const publics: [string, Uint8Array, NodeKey | DiscoKey][] = [
    ["node_priv", nodePrivate.subarray(KEY_LENGTH), identity.nodeKey],
    ["node_pub", field(keys, "node_pub", KEY_LENGTH), identity.nodeKey],
    ["disco_pub", field(keys, "disco_pub", KEY_LENGTH), identity.discoKey],
  ];
  for (const [name, written, derived] of publics) {
    if (!equalBytes(written, keyBytes(derived))) {
      throw new RangeError(`${name}: public key does not belong to the private one`);
    }
  }
  return identity;
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes its input.
    throw new SyntaxError("not JSON");
  }
  if (typeof value !== "object" || value === null) throw new SyntaxError("not a JSON object");
  return value as Record<string, unknown>;
}

function field(keys: Record<string, unknown>, name: string, length: number) {
  const text = keys[name];
  if (typeof text !== "string") throw new SyntaxError(`${name}: missing`);
  let bytes;
  try {
    bytes = fromBase64(text);
  } catch {
    throw new SyntaxError(`${name}: not base64`);
  }
  if (bytes.length !== length) {
    throw new RangeError(`${name}: ${bytes.length} bytes, want ${length}`);
  }
  return bytes;
}
