/**
 * The node's two key pairs, kept in `keys.json`: four base64 strings, `node_priv` (64 bytes:
 * Ed25519 seed and public key, RFC 8032), `node_pub`, `disco_priv` (X25519 scalar), `disco_pub`.
 */
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { concatBytes, equalBytes, fromBase64, toBase64 } from "../bytes.ts";
import type { Random } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  KEY_LENGTH,
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

export function newIdentity(random: Random): Identity {
  return identityFrom(random(KEY_LENGTH), random(KEY_LENGTH));
}

function identityFrom(
  nodeSeed: Uint8Array<ArrayBuffer>,
  discoPrivate: Uint8Array<ArrayBuffer>,
): Identity {
  return {
    nodeSeed,
    nodeKey: nodeKeyFromBytes(ed25519.getPublicKey(nodeSeed)),
    discoPrivate,
    discoKey: discoKeyFromBytes(x25519.getPublicKey(discoPrivate)),
  };
}

export function formatKeys({ nodeSeed, discoPrivate }: Identity): string {
  const nodePublic = ed25519.getPublicKey(nodeSeed);
  const keys = {
    node_priv: toBase64(concatBytes(nodeSeed, nodePublic)),
    node_pub: toBase64(nodePublic),
    disco_priv: toBase64(discoPrivate),
    disco_pub: toBase64(x25519.getPublicKey(discoPrivate)),
  };
  return JSON.stringify(keys, null, 2) + "\n";
}

/** Throws `SyntaxError` or `RangeError`, never with key material in the message. */
export function parseKeys(text: string): Identity {
  const keys = parseObject(text);
  const nodePrivate = field(keys, "node_priv", 2 * KEY_LENGTH);
  const identity = identityFrom(
    nodePrivate.slice(0, KEY_LENGTH),
    field(keys, "disco_priv", KEY_LENGTH),
  );
  const publics: [string, Uint8Array, Uint8Array][] = [
    ["node_priv", nodePrivate.subarray(KEY_LENGTH), ed25519.getPublicKey(identity.nodeSeed)],
    ["node_pub", field(keys, "node_pub", KEY_LENGTH), ed25519.getPublicKey(identity.nodeSeed)],
    ["disco_pub", field(keys, "disco_pub", KEY_LENGTH), x25519.getPublicKey(identity.discoPrivate)],
  ];
  for (const [name, written, derived] of publics) {
    if (!equalBytes(written, derived)) {
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

/**
 * Reads `keys.json` in `stateDir`, or makes it (directory 0700, file 0600, atomically). Refuses a
 * file that others can read, and one that it cannot parse, and leaves it untouched.
 */
export async function loadIdentity(stateDir: string, random: Random): Promise<Identity> {
  const path = `${stateDir}/keys.json`;
  let info;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return await createIdentity(stateDir, path, random);
    throw unreadable(path, error);
  }
  if (((info.mode ?? 0) & 0o077) !== 0) {
    throw new GretunError(
      `cannot use ${path}: others can read it (mode ${(info.mode! & 0o777).toString(8)})`,
      `Run: chmod 600 ${path}`,
    );
  }
  let text;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    return parseKeys(text);
  } catch (error) {
    throw new GretunError(
      `cannot use ${path}: ${errorText(error)}`,
      "Restore it from a copy, or move it away to get a new identity",
    );
  }
}

function unreadable(path: string, cause: unknown): GretunError {
  return new GretunError(
    `cannot read ${path}: ${errorText(cause)}`,
    "Run as the user that owns it, or give another --state-dir",
    { cause },
  );
}

async function createIdentity(stateDir: string, path: string, random: Random): Promise<Identity> {
  const identity = newIdentity(random);
  const temporary = `${path}.${Deno.pid}`;
  try {
    await Deno.mkdir(stateDir, { recursive: true, mode: 0o700 });
    {
      using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
      await file.write(new TextEncoder().encode(formatKeys(identity)));
      await file.sync();
    }
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw new GretunError(
      `cannot write ${path}: ${errorText(error)}`,
      "Give a directory that you may write to with --state-dir",
      { cause: error },
    );
  }
  return identity;
}
