/**
 * Signed requests. Headers `X-Gretun-Node` (base64 Ed25519 public key), `X-Gretun-Timestamp` (Unix
 * seconds), `Authorization: Gretun BASE64`, and from our own nodes `X-Gretun-Nonce` and
 * `X-Gretun-Coordinator`, the key of who is to take it. What is signed:
 *
 *     "gretun request" LF coordinator LF timestamp LF method LF path with query LF nonce LF SHA-256 of the body
 *
 * Nodes of before sign less: timestamp LF method LF path LF SHA-256 of the body, then, with a nonce,
 * LF and the nonce's text. So do ours to a coordinator without a key, with a nonce that tells one with a
 * key that they could have done better.
 */
import { concatBytes, fromBase64, fromHex, toBase64 } from "../bytes.ts";
import { type Agree, type Sign, verify } from "../ed25519.ts";
import { keyBase64, keyBytes, type NodeKey, nodeKeyFromBytes } from "../keys.ts";
import type { HeaderFields } from "../server_http.ts";
import { COORDINATOR_HEADER, NONCE_HEADER, readNonce } from "./api.ts";

export const WINDOW_SECONDS = 60;
const DOMAIN = "gretun request";
/** Of nonces by nodes that can sign for a coordinator's key. */
const ABLE = "gretun2/";
/** Of their timestamps where they sign as the original, without a nonce. */
const ABLE_ORIGINAL = "0";
/** Most requests have no body, and a digest is not free. */
const SHA256_OF_NOTHING = fromHex(
  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
);

/** An Ed25519 key pair, as who signs by it needs it. */
export interface SigningKey {
  publicKey: NodeKey;
  sign: Sign;
}

/** The coordinator's own. */
export interface CoordinatorKey extends SigningKey {
  /** With it as a key of X25519. */
  agree: Agree;
}

interface SignedParts {
  timestamp: string;
  method: string;
  path: string;
  /** With its question mark. */
  query?: string;
  body: Uint8Array<ArrayBuffer>;
  nonce?: string;
  /** Absent: it has none, or it is not known. */
  coordinator?: NodeKey;
}

export function originalTimestamp(seconds: number): string {
  return ABLE_ORIGINAL + seconds;
}

export function ownNonce(random: Uint8Array): string {
  return ABLE + toBase64(random);
}

async function signedBytes(parts: SignedParts): Promise<Uint8Array<ArrayBuffer>> {
  const text = new TextEncoder();
  const { timestamp, method, path, query = "", nonce, coordinator } = parts;
  const digest = parts.body.length === 0
    ? SHA256_OF_NOTHING
    : new Uint8Array(await crypto.subtle.digest("SHA-256", parts.body));
  if (coordinator !== undefined) {
    const lines = [DOMAIN, keyBase64(coordinator), timestamp, method, path + query, nonce ?? ""];
    return concatBytes(text.encode(lines.join("\n") + "\n"), digest);
  }
  const head = text.encode(`${timestamp}\n${method}\n${path}\n`);
  return concatBytes(head, digest, text.encode(nonce === undefined ? "" : `\n${nonce}`));
}

/** The headers of one request. */
export async function signRequest(
  parts: SignedParts,
  nodeKey: NodeKey,
  sign: Sign,
): Promise<Record<string, string>> {
  const { timestamp, nonce, coordinator } = parts;
  const signature = await sign(await signedBytes(parts));
  return {
    "x-gretun-node": keyBase64(nodeKey),
    "x-gretun-timestamp": timestamp,
    ...(nonce === undefined ? {} : { [NONCE_HEADER]: nonce }),
    ...(coordinator === undefined ? {} : { [COORDINATOR_HEADER]: keyBase64(coordinator) }),
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
  /** Whose key it is signed for; absent from nodes of before. */
  coordinator?: NodeKey;
}

/** Whether the node that made the request can sign for a coordinator's key. */
export function isAble(headers: HeaderFields): boolean {
  return headers.has(COORDINATOR_HEADER) || readNonce(headers)?.startsWith(ABLE) === true ||
    headers.get("x-gretun-timestamp")?.startsWith(ABLE_ORIGINAL) === true;
}

/** What the headers claim, with everything checked that costs nothing. Throws {@link AuthError}. */
export function readClaim(headers: HeaderFields, nowMs: number): Claim {
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
  const nodeKey = decodedKey(node, "node key");
  if (!/^\d{1,12}$/.test(timestamp)) throw new AuthError("timestamp is not Unix seconds");
  const timestampSeconds = Number(timestamp);
  const aheadSeconds = timestampSeconds - Math.floor(nowMs / 1000);
  if (Math.abs(aheadSeconds) > WINDOW_SECONDS) throw new ClockError(aheadSeconds);
  const hasNonce = headers.has(NONCE_HEADER);
  if (hasNonce && readNonce(headers) === undefined) {
    throw new AuthError("nonce is not 16 to 64 base64 characters");
  }
  const coordinator = headers.get(COORDINATOR_HEADER);
  return {
    nodeKey,
    timestampSeconds,
    // Base64 of 64 bytes can be written in 16 ways, which are one signature.
    signature: toBase64(signature),
    hasNonce,
    ...(coordinator === null ? {} : { coordinator: decodedKey(coordinator, "coordinator's key") }),
  };
}

interface SignedRequest {
  method: string;
  path: string;
  query?: string;
  headers: HeaderFields;
  body: Uint8Array<ArrayBuffer>;
}

/** Whether the signature is right: the one dear step, to be taken last. */
export async function verifyClaim(claim: Claim, request: SignedRequest): Promise<boolean> {
  const { headers, ...parts } = request;
  const nonce = readNonce(headers);
  const { coordinator } = claim;
  const bytes = await signedBytes({
    ...parts,
    timestamp: headers.get("x-gretun-timestamp")!,
    ...(nonce === undefined ? {} : { nonce }),
    ...(coordinator === undefined ? {} : { coordinator }),
  });
  return await verify(keyBytes(claim.nodeKey), fromBase64(claim.signature), bytes);
}

function decodedKey(text: string, what: string): NodeKey {
  const bytes = decoded(text, what);
  if (bytes.length !== 32) throw new AuthError(`${what} is ${bytes.length} bytes: want 32`);
  return nodeKeyFromBytes(bytes);
}

function decoded(text: string, what: string): Uint8Array {
  try {
    return fromBase64(text);
  } catch {
    throw new AuthError(`${what} is not base64`);
  }
}
