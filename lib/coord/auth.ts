/**
 * Signed requests. Headers `X-Gretun-Node` (base64 Ed25519 public key), `X-Gretun-Timestamp` (Unix
 * seconds), `Authorization: Gretun BASE64`, and from our own nodes `X-Gretun-Nonce`. Signed bytes:
 * timestamp LF method LF path LF SHA-256 of the body, then, with a nonce, LF and the nonce's text.
 */
import { concatBytes, fromBase64, toBase64 } from "../bytes.ts";
import { type Sign, verify } from "../ed25519.ts";
import { keyBase64, keyBytes, type NodeKey, nodeKeyFromBytes } from "../keys.ts";

export const WINDOW_SECONDS = 60;
const NONCE_PATTERN = /^[A-Za-z0-9+/=]{16,64}$/;

interface SignedParts {
  timestamp: string;
  method: string;
  /** Without the query. */
  path: string;
  body: Uint8Array<ArrayBuffer>;
  nonce?: string;
}

async function signedBytes(parts: SignedParts): Promise<Uint8Array<ArrayBuffer>> {
  const text = new TextEncoder();
  const head = text.encode(`${parts.timestamp}\n${parts.method}\n${parts.path}\n`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", parts.body));
  const tail = parts.nonce === undefined ? "" : `\n${parts.nonce}`;
  return concatBytes(head, digest, text.encode(tail));
}

/** The headers of one request. */
export async function signRequest(
  parts: SignedParts,
  nodeKey: NodeKey,
  sign: Sign,
): Promise<Record<string, string>> {
  const signature = await sign(await signedBytes(parts));
  return {
    "x-gretun-node": keyBase64(nodeKey),
    "x-gretun-timestamp": parts.timestamp,
    ...(parts.nonce === undefined ? {} : { "x-gretun-nonce": parts.nonce }),
    authorization: `Gretun ${toBase64(signature)}`,
  };
}

/** The request is not signed as it should be: 401 with this reason. */
export class AuthError extends Error {
  override name = "AuthError";
}

/** The node's clock and the coordinator's are too far apart. */
export class ClockError extends AuthError {
  override name = "ClockError";
  constructor(aheadSeconds: number) {
    const direction = aheadSeconds > 0 ? "ahead of" : "behind";
    super(
      `timestamp is ${Math.abs(aheadSeconds)} s ${direction} the coordinator's clock, ` +
        `more than ${WINDOW_SECONDS} s off: set this host's clock`,
    );
  }
}

export interface Claim {
  nodeKey: NodeKey;
  timestampSeconds: number;
  /** Names this request among all that are still in the window. */
  signature: string;
  hasNonce: boolean;
}

/** What the headers claim, with everything checked that costs nothing. Throws {@link AuthError}. */
export function readClaim(headers: Headers, nowMs: number): Claim {
  const timestamp = headers.get("x-gretun-timestamp");
  const node = headers.get("x-gretun-node");
  const authorization = headers.get("authorization");
  if (timestamp === null || node === null || authorization === null) {
    throw new AuthError("missing authentication headers: sign the request");
  }
  const [scheme, signatureText, ...more] = authorization.split(" ");
  if (scheme !== "Gretun" || !signatureText || more.length > 0) {
    throw new AuthError('authorization is not "Gretun SIGNATURE"');
  }
  const signature = decoded(signatureText, "signature");
  if (signature.length !== 64) {
    throw new AuthError(`signature is ${signature.length} bytes: want 64`);
  }
  const keyText = decoded(node, "node key");
  if (keyText.length !== 32) throw new AuthError(`node key is ${keyText.length} bytes: want 32`);
  if (!/^\d{1,12}$/.test(timestamp)) throw new AuthError("timestamp is not Unix seconds");
  const timestampSeconds = Number(timestamp);
  const aheadSeconds = timestampSeconds - Math.floor(nowMs / 1000);
  if (Math.abs(aheadSeconds) > WINDOW_SECONDS) throw new ClockError(aheadSeconds);
  const nonce = headers.get("x-gretun-nonce");
  if (nonce !== null && !NONCE_PATTERN.test(nonce)) {
    throw new AuthError("nonce is not 16 to 64 base64 characters");
  }
  const nodeKey = nodeKeyFromBytes(keyText);
  // Base64 of 64 bytes can be written in 16 ways, which are one signature.
  return { nodeKey, timestampSeconds, signature: toBase64(signature), hasNonce: nonce !== null };
}

/** Whether the signature is right: the one dear step, to be taken last. */
export async function verifyClaim(
  claim: Claim,
  request: { method: string; path: string; headers: Headers; body: Uint8Array<ArrayBuffer> },
): Promise<boolean> {
  const nonce = request.headers.get("x-gretun-nonce");
  const bytes = await signedBytes({
    timestamp: request.headers.get("x-gretun-timestamp")!,
    method: request.method,
    path: request.path,
    body: request.body,
    ...(nonce === null ? {} : { nonce }),
  });
  return await verify(keyBytes(claim.nodeKey), fromBase64(claim.signature), bytes);
}

function decoded(text: string, what: string): Uint8Array {
  try {
    return fromBase64(text);
  } catch {
    throw new AuthError(`${what} is not base64`);
  }
}
