/**
 * A node's proof that its disco key (X25519) is its own, since such a key signs nothing: HMAC-SHA256 of
 * "gretun disco key" LF node key LF disco key, in base64, by what only the owner of the disco key and the
 * coordinator can compute, the shared secret of both (RFC 7748 section 6.1). The coordinator's half is its
 * Ed25519 key on the other curve.
 */
import { type Agree, agreementPublic } from "../ed25519.ts";
import { type DiscoKey, keyBase64, keyBytes, type NodeKey } from "../keys.ts";
import { prepareSecrets, sharedSecret } from "../x25519.ts";

interface Owner {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
}

export async function proveDiscoKey(
  discoPrivate: Uint8Array,
  owner: Owner,
  coordinator: NodeKey,
): Promise<Uint8Array> {
  const publicKey = agreementPublic(keyBytes(coordinator)) as Uint8Array<ArrayBuffer>;
  await prepareSecrets(discoPrivate, [publicKey]);
  const shared = sharedSecret(discoPrivate, publicKey);
  return new Uint8Array(await crypto.subtle.sign("HMAC", await macKey(shared), text(owner)));
}

/** Whether the node has proven it to the coordinator, whose key agrees. */
export async function isProof(proof: Uint8Array, owner: Owner, agree: Agree): Promise<boolean> {
  let shared;
  try {
    shared = await agree(keyBytes(owner.discoKey));
  } catch {
    return false; // a disco key of small order
  }
  return await crypto.subtle.verify("HMAC", await macKey(shared), proof.slice(), text(owner));
}

function macKey(shared: Uint8Array): Promise<CryptoKey> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  return crypto.subtle.importKey("raw", shared.slice(), algorithm, false, ["sign", "verify"]);
}

function text({ nodeKey, discoKey }: Owner): Uint8Array<ArrayBuffer> {
  const lines = ["gretun disco key", keyBase64(nodeKey), keyBase64(discoKey)];
  return new TextEncoder().encode(lines.join("\n")) as Uint8Array<ArrayBuffer>;
}
