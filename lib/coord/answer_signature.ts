/**
 * Signed answers. The coordinator signs each answer to a request that has a nonce, with its key of
 * Ed25519. Headers: `X-Gretun-Coordinator` (base64 public key), `X-Gretun-Time` (Unix ms),
 * `X-Gretun-Signature` (base64). What is signed:
 *
 *     "gretun answer" LF coordinator LF of the request: nonce LF method LF path with query LF Authorization
 *     LF of the answer: status LF time LF Retry-After LF refusal LF clone LF SHA-256 of the body
 *
 * The request's own signature is part of it, so that no answer to another one fits. A header that is not
 * there is an empty line; other headers may be changed on the way and mean nothing.
 */
import { concatBytes, fromBase64, toBase64 } from "../bytes.ts";
import { SIGNATURE_LENGTH, verify } from "../ed25519.ts";
import { keyBase64, keyBytes, type NodeKey, nodeKeyFromBase64 } from "../keys.ts";
import { CLONE_HEADER, COORDINATOR_HEADER, REFUSAL_HEADER } from "./api.ts";
import type { HeaderFields, ServerAnswer } from "../server_http.ts";
import type { SigningKey } from "./auth.ts";

const TIME_HEADER = "x-gretun-time";
const SIGNATURE_HEADER = "x-gretun-signature";
const DOMAIN = "gretun answer";
/** Shorter ones are one caller's as a rule. */
const SHARED_LENGTH = 1024;
/** Of bodies that are the same bytes for many: a list of peers, told to all of a group at once. */
const digests = new WeakMap<Uint8Array, Promise<Uint8Array>>();

function digestOf(body: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const known = digests.get(body);
  if (known) return known;
  const digest = crypto.subtle.digest("SHA-256", body).then((bytes) => new Uint8Array(bytes));
  if (body.length >= SHARED_LENGTH) digests.set(body, digest);
  return digest;
}

/** The request that is answered. */
export interface Asked {
  nonce: string;
  method: string;
  /** As the coordinator sees it, with the query. */
  path: string;
  /** Its header, "" where there is none. */
  authorization: string;
}

interface Answer {
  status: number;
  /** "" where there is none of that name. */
  field: (name: string) => string;
  body: Uint8Array<ArrayBuffer>;
}

async function signedBytes(
  coordinator: NodeKey,
  { nonce, method, path, authorization }: Asked,
  { status, field, body }: Answer,
): Promise<Uint8Array<ArrayBuffer>> {
  const named = [TIME_HEADER, "retry-after", REFUSAL_HEADER, CLONE_HEADER];
  const lines = [
    ...[DOMAIN, keyBase64(coordinator), nonce, method, path, authorization, String(status)],
    ...named.map(field),
  ];
  return concatBytes(new TextEncoder().encode(lines.join("\n") + "\n"), await digestOf(body));
}

/** The same answer with its signature. */
export async function signAnswer(
  { status, headers, body }: ServerAnswer,
  asked: Asked,
  { publicKey, sign }: SigningKey,
  wallMs: number,
): Promise<ServerAnswer> {
  const all: Record<string, string> = {
    ...headers,
    [COORDINATOR_HEADER]: keyBase64(publicKey),
    [TIME_HEADER]: String(Math.floor(wallMs)),
  };
  const field = (name: string) => all[name] ?? "";
  const signature = await sign(await signedBytes(publicKey, asked, { status, field, body }));
  return { status, headers: { ...all, [SIGNATURE_HEADER]: toBase64(signature) }, body };
}

/** Who signed the answer, and when by its clock; undefined where nobody did. */
export async function readSigner(
  asked: Asked,
  { status, headers, body }: Omit<ServerAnswer, "headers"> & { headers: HeaderFields },
): Promise<{ coordinator: NodeKey; timeMs: number } | undefined> {
  const field = (name: string) => headers.get(name) ?? "";
  const [key, time, signature] = [COORDINATOR_HEADER, TIME_HEADER, SIGNATURE_HEADER]
    .map(field);
  if (!key || !signature || !/^\d{1,15}$/.test(time!)) return undefined;
  try {
    const coordinator = nodeKeyFromBase64(key);
    const bytes = await signedBytes(coordinator, asked, { status, field, body });
    const given = fromBase64(signature);
    const isRight = given.length === SIGNATURE_LENGTH &&
      await verify(keyBytes(coordinator), given, bytes);
    return isRight ? { coordinator, timeMs: Number(time) } : undefined;
  } catch {
    return undefined; // no base64, or no key
  }
}
