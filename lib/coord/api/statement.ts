/**
 * What a node says of itself for others, signed with its node key: so nobody, the coordinator neither, can
 * put other keys or endpoints in their place. What is signed is "gretun statement" LF and the JSON text.
 */
import { keyBytes, type NodeKey } from "../../keys.ts";
import { type Sign, verify } from "../../ed25519.ts";
import { ApiError, MS, parsed, parseShape, required, shapeJson, type Values } from "./json.ts";
import { SAID } from "./node.ts";
import type { Signed } from "./signed.ts";

const DOMAIN = "gretun statement\n";

const STATEMENT = {
  /** Rises with each: Unix ms as a rule. An old one is not taken after a newer one. */
  sequence: required("sequence", MS),
  ...SAID,
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
  return parseStatement(text);
}

/** What was signed. Throws {@link ApiError}. */
export function parseStatement(text: string): Statement {
  return parseShape(STATEMENT, parsed("statement", () => JSON.parse(text)), "statement");
}
