/**
 * What a node and a relay say to each other, as STUN messages (RFC 8489) of a method of its own, so
 * that they pass where STUN passes: a node's raw socket takes STUN and disco only.
 *
 *     hello     request with PADDING alone; padded so that no answer is longer
 *     request   NONCE, GRANT, NODE, TIMESTAMP, RELAY-PORT, SIGNATURE in this order
 *     success   RELAY-PORT, LIFETIME
 *     error     ERROR-CODE, and with 401 NONCE
 *     hint      an error with transaction id zero, in answer to data: the relay does not know who
 *               that came from, as when a NAT has mapped a node anew; 437 and NONCE
 *
 * SIGNATURE is the node's Ed25519 signature over a context string and all bytes before that
 * attribute; the header's length counts it, as with MESSAGE-INTEGRITY (section 14.5).
 */
import { concatBytes, Reader, Writer } from "../bytes.ts";
import { type Sign, SIGNATURE_LENGTH, verify } from "../ed25519.ts";
import { KEY_LENGTH, keyBytes, type NodeKey, nodeKeyFromBytes } from "../keys.ts";
import {
  ATTRIBUTE,
  decodeStun,
  encodeStun,
  errorCode,
  HEADER_LENGTH,
  isStun,
  methodPattern,
  type StunAttribute,
  StunFormatError,
  type StunMessage,
  TX_ID_LENGTH,
} from "../stun/mod.ts";
import { GRANT_LENGTH } from "./grants.ts";

/** Not in IANA's registry of STUN methods, and far from what is. */
const METHOD = 0x6e7;

/** Section 5: the two bits of the class stand between bits of the method. */
function stunType(classBits: number): number {
  return (METHOD & 0xf80) << 2 | (classBits & 2) << 7 | (METHOD & 0x70) << 1 |
    (classBits & 1) << 4 | (METHOD & 0xf);
}

export const RELAY_REQUEST = stunType(0);
export const RELAY_SUCCESS = stunType(2);
export const RELAY_ERROR = stunType(3);
/** By it a relay's messages are known where data comes too. */
export const RELAY_PATTERN = methodPattern(RELAY_REQUEST);

/** LIFETIME is TURN's (RFC 8656), PADDING is of RFC 5780, the others are this protocol's own. */
export const RELAY_ATTRIBUTE = {
  LIFETIME: 0x000d,
  PADDING: 0x0026,
  GRANT: 0x7e01,
  NODE: 0x7e02,
  TIMESTAMP: 0x7e03,
  RELAY_PORT: 0x7e04,
  SIGNATURE: 0x7e05,
} as const;

export const NONCE_LENGTH = 36;
/** Of a hint, as the data that it answers has none. */
export const NO_TX_ID: Uint8Array = new Uint8Array(TX_ID_LENGTH);
/** Header, ERROR-CODE and NONCE: the longest answer to a hello, and the least that a hello has. */
export const HELLO_LENGTH = HEADER_LENGTH + 8 + 4 + NONCE_LENGTH;
const SIGNATURE_ATTRIBUTE_LENGTH = 4 + SIGNATURE_LENGTH;
const CONTEXT = new TextEncoder().encode("gretun relay request\n");

export const RELAY_ERROR_CODE = {
  /** No nonce, or an old one: again with the one that is in this answer. */
  UNAUTHENTICATED: 401,
  /** The grant or the signature is wrong: get another grant. */
  FORBIDDEN: 403,
  /** There is no such allocation on this port: allocate anew. */
  NO_ALLOCATION: 437,
  /** This node has as many allocations as it may have. */
  QUOTA: 486,
  /** The relay is full. */
  FULL: 508,
} as const;

export interface RelayRequest {
  /** 12 bytes. */
  txId: Uint8Array;
  nonce: Uint8Array;
  grant: Uint8Array;
  node: NodeKey;
  /** Milliseconds since 1970; later requests of a node have later ones. */
  timestampMs: number;
  /** The relayed port that it is sent to, or 0 at the relay's main port: allocate. */
  port: number;
}

export interface SignedRelayRequest extends RelayRequest {
  kind: "request";
  signature: Uint8Array<ArrayBuffer>;
  /** What the signature is over. */
  signed: Uint8Array<ArrayBuffer>;
}

export type RelayMessage =
  | { kind: "hello"; txId: Uint8Array; lengthBytes: number }
  | SignedRelayRequest
  | { kind: "success"; txId: Uint8Array; port: number; lifetimeSeconds: number }
  | { kind: "error"; txId: Uint8Array; code: number; nonce?: Uint8Array };

/** Whether it is between a node and a relay, intact or not; not STUN's binding, nor relayed data. */
export function isRelayMessage(bytes: Uint8Array): boolean {
  if (!isStun(bytes)) return false;
  const type = new Reader(bytes, "network").u16();
  return type === RELAY_REQUEST || type === RELAY_SUCCESS || type === RELAY_ERROR;
}

export function encodeHello(txId: Uint8Array): Uint8Array<ArrayBuffer> {
  const value = new Uint8Array(HELLO_LENGTH - HEADER_LENGTH - 4);
  const attributes = [{ type: RELAY_ATTRIBUTE.PADDING, value }];
  return encodeStun({ type: RELAY_REQUEST, txId, attributes });
}

export async function encodeRequest(
  request: RelayRequest,
  sign: Sign,
): Promise<Uint8Array<ArrayBuffer>> {
  const { txId, nonce, grant, node, timestampMs, port } = request;
  const attributes: StunAttribute[] = [
    { type: ATTRIBUTE.NONCE, value: nonce },
    { type: RELAY_ATTRIBUTE.GRANT, value: grant },
    { type: RELAY_ATTRIBUTE.NODE, value: keyBytes(node) },
    {
      type: RELAY_ATTRIBUTE.TIMESTAMP,
      value: new Writer("network", 8).u64(BigInt(timestampMs)).finish(),
    },
    relayPort(port),
  ];
  const message = { type: RELAY_REQUEST, txId, attributes };
  const covered = encodeStun(message, SIGNATURE_ATTRIBUTE_LENGTH);
  const head = new Writer("network", 4).u16(RELAY_ATTRIBUTE.SIGNATURE).u16(SIGNATURE_LENGTH)
    .finish();
  return concatBytes(covered, head, await sign(concatBytes(CONTEXT, covered)));
}

/** Whether the node that it names has signed it. */
export function verifyRequest({ node, signature, signed }: SignedRelayRequest): Promise<boolean> {
  return verify(keyBytes(node), signature, signed);
}

export function encodeSuccess(
  answer: { txId: Uint8Array; port: number; lifetimeSeconds: number },
): Uint8Array<ArrayBuffer> {
  const lifetime = new Writer("network", 4).u32(answer.lifetimeSeconds).finish();
  const attributes = [
    relayPort(answer.port),
    { type: RELAY_ATTRIBUTE.LIFETIME, value: lifetime },
  ];
  return encodeStun({ type: RELAY_SUCCESS, txId: answer.txId, attributes });
}

export function encodeError(
  answer: { txId: Uint8Array; code: number; nonce?: Uint8Array },
): Uint8Array<ArrayBuffer> {
  const attributes = [errorCode(answer.code)];
  if (answer.nonce) attributes.push({ type: ATTRIBUTE.NONCE, value: answer.nonce });
  return encodeStun({ type: RELAY_ERROR, txId: answer.txId, attributes });
}

function relayPort(port: number): StunAttribute {
  return {
    type: RELAY_ATTRIBUTE.RELAY_PORT,
    value: new Writer("network", 2).u16(port).finish(),
  };
}

/** Unknown attributes in answers are ignored. Throws `StunFormatError` and nothing else. */
export function decodeRelayMessage(bytes: Uint8Array): RelayMessage {
  const message = decodeStun(bytes);
  const { txId } = message;
  switch (message.type) {
    case RELAY_REQUEST:
      return decodeRequest(bytes, message);
    case RELAY_SUCCESS: {
      const port = value(message, RELAY_ATTRIBUTE.RELAY_PORT, 2).u16();
      const lifetimeSeconds = value(message, RELAY_ATTRIBUTE.LIFETIME, 4).u32();
      return { kind: "success", txId, port, lifetimeSeconds };
    }
    case RELAY_ERROR: {
      const reader = value(message, ATTRIBUTE.ERROR_CODE, 4).skip(2);
      const code = (reader.u8() & 7) * 100 + reader.u8();
      const nonce = message.attributes.find(({ type }) => type === ATTRIBUTE.NONCE)?.value;
      const hasNonce = nonce?.length === NONCE_LENGTH;
      return { kind: "error", txId, code, ...(hasNonce ? { nonce } : {}) };
    }
    default:
      throw new StunFormatError(
        `STUN message of type 0x${message.type.toString(16)}: not a relay's`,
      );
  }
}

/** The attributes of a request, each of its one length. */
const REQUEST_LAYOUT: readonly [type: number, length: number][] = [
  [ATTRIBUTE.NONCE, NONCE_LENGTH],
  [RELAY_ATTRIBUTE.GRANT, GRANT_LENGTH],
  [RELAY_ATTRIBUTE.NODE, KEY_LENGTH],
  [RELAY_ATTRIBUTE.TIMESTAMP, 8],
  [RELAY_ATTRIBUTE.RELAY_PORT, 2],
  [RELAY_ATTRIBUTE.SIGNATURE, SIGNATURE_LENGTH],
];

/** Strict: every byte of it is signed, and there is one way to write it. */
function decodeRequest(bytes: Uint8Array, { txId, attributes }: StunMessage): RelayMessage {
  const [only] = attributes;
  if (attributes.length === 1 && only!.type === RELAY_ATTRIBUTE.PADDING) {
    return { kind: "hello", txId, lengthBytes: bytes.length };
  }
  const fits = attributes.length === REQUEST_LAYOUT.length &&
    REQUEST_LAYOUT.every(([type, length], i) =>
      attributes[i]!.type === type && attributes[i]!.value.length === length
    );
  const end = attributes.at(-1);
  if (!fits || bytes.length !== end!.offset + SIGNATURE_ATTRIBUTE_LENGTH) {
    throw new StunFormatError("relay request that is laid out wrongly");
  }
  const [nonce, grant, node, timestamp, port, signature] = attributes.map((a) => a.value);
  return {
    kind: "request",
    txId,
    nonce: nonce!,
    grant: grant!,
    node: nodeKeyFromBytes(node!),
    timestampMs: Number(new Reader(timestamp!, "network").u64()),
    port: new Reader(port!, "network").u16(),
    signature: signature!.slice(),
    signed: concatBytes(CONTEXT, bytes.subarray(0, end!.offset)),
  };
}

/** Of the first attribute of that type, which must be that long at least. */
function value({ attributes }: StunMessage, wanted: number, length: number): Reader {
  const found = attributes.find(({ type }) => type === wanted)?.value;
  if (found && found.length >= length) return new Reader(found, "network");
  throw new StunFormatError(`relay's answer without attribute 0x${wanted.toString(16)}`);
}
