/**
 * What a node says of itself for others, signed with its node key: so nobody, the coordinator neither, can
 * put other keys or endpoints in their place. What is signed is "gretun statement" LF and the JSON text.
 */
import { keyBytes, type NodeKey } from "../../keys.ts";
import { type Sign, verify } from "../../ed25519.ts";
import {
  ApiError,
  DISCO_KEY_TEXT,
  IP,
  MS,
  optional,
  parsed,
  parseShape,
  required,
  shapeJson,
  type Values,
} from "./json.ts";
import { type PeerRecord, REACH } from "./node.ts";
import type { Signed } from "./signed.ts";

const DOMAIN = "gretun statement\n";

const STATEMENT = {
  /** Rises with each: Unix ms as a rule. An old one is not taken after a newer one. */
  sequence: required("sequence", MS),
  discoKey: required("disco_pubkey", DISCO_KEY_TEXT),
  /** As the node has it; absent before it is told one. */
  tunnelIp: optional("tunnel_ip", IP),
  ...REACH,
};

export type Statement = Values<typeof STATEMENT>;

const signedBytes = (text: string) =>
  new TextEncoder().encode(DOMAIN + text) as Uint8Array<ArrayBuffer>;

export async function signStatement(statement: Statement, sign: Sign): Promise<Signed> {
  const text = JSON.stringify(shapeJson(STATEMENT, statement));
  return { text, signature: await sign(signedBytes(text)) };
}

/** Throws {@link ApiError} for what that node has not signed, and for what is no statement. */
export async function readStatement(
  { text, signature }: Signed,
  node: NodeKey,
): Promise<Statement> {
  if (!await verify(keyBytes(node), signature, signedBytes(text))) {
    throw new ApiError("statement is not signed with the node's key");
  }
  return parseShape(STATEMENT, parsed("statement", () => JSON.parse(text)), "statement");
}

/** What the peer says itself in place of what is said of it. */
export function asStated(record: PeerRecord, statement: Statement): PeerRecord {
  const { sequence: _sequence, tunnelIp: _tunnelIp, ...stated } = statement;
  const others = Object.entries(record).filter(([name]) => !Object.hasOwn(REACH, name));
  return { ...Object.fromEntries(others), ...stated } as PeerRecord;
}
