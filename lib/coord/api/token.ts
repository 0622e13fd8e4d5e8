/**
 * Tokens that let a node join. The text that a user is given names the coordinator's key, so that a
 * node knows whom it talks to, and the secret: `gretun-` and base64url of key (32), secret (24).
 */
import { concatBytes, fromBase64, toBase64 } from "../../bytes.ts";
import { KEY_LENGTH, keyBytes, type NodeKey, nodeKeyFromBytes } from "../../keys.ts";
import {
  listOf,
  MARK,
  MS,
  number,
  optional,
  parseShape,
  required,
  shapeJson,
  STRING,
  text,
  type Values,
} from "./json.ts";

export const TOKEN_SECRET_LENGTH = 24;
export const MAX_TAGS = 16;
export const MAX_TAG_LENGTH = 32;
const PREFIX = "gretun-";

export const TAGS = listOf(text(MAX_TAG_LENGTH), MAX_TAGS, "tag");

const TOKEN = {
  /** Names it; no secret. */
  id: required("id", STRING),
  /** SHA-256 of the secret, hex. */
  hash: required("hash", STRING),
  createdMs: required("created_ms", MS),
  expiresMs: optional("expires_ms", MS),
  /** More than one node may join by it. */
  isReusable: optional("reusable", MARK),
  /** Nodes that join by it are forgotten when they go. */
  isEphemeral: optional("ephemeral", MARK),
  /** Nodes that join by it need no approval. */
  isApproving: optional("approve", MARK),
  tags: required("tags", TAGS),
  /** How many nodes have joined by it. */
  uses: required("uses", number({ min: 0, max: Number.MAX_SAFE_INTEGER })),
  isRevoked: optional("revoked", MARK),
};

export type TokenRecord = Values<typeof TOKEN>;

export const tokenJson = (token: TokenRecord) => shapeJson(TOKEN, token);
export const parseToken = (value: unknown): TokenRecord => parseShape(TOKEN, value, "token");

/** What the user is shown once. */
export function tokenText(coordinator: NodeKey, secret: Uint8Array): string {
  const base64 = toBase64(concatBytes(keyBytes(coordinator), secret));
  return PREFIX + base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Throws `RangeError`. */
export function parseTokenText(given: string): { coordinator: NodeKey; secret: Uint8Array } {
  const base64 = given.slice(PREFIX.length).replaceAll("-", "+").replaceAll("_", "/");
  const bytes = given.startsWith(PREFIX) ? decoded(base64) : undefined;
  if (bytes?.length !== KEY_LENGTH + TOKEN_SECRET_LENGTH) throw new RangeError("not a token");
  return {
    coordinator: nodeKeyFromBytes(bytes.subarray(0, KEY_LENGTH)),
    secret: bytes.subarray(KEY_LENGTH),
  };
}

function decoded(base64: string): Uint8Array | undefined {
  try {
    return fromBase64(base64 + "=".repeat((4 - base64.length % 4) % 4));
  } catch {
    return undefined;
  }
}
