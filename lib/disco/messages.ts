/**
 * Disco messages, Tailscale's format: type u8, version u8 (sent as 0), body. Big endian. Bodies
 * may grow at their end: longer ones are read, shorter ones refused.
 *
 *     1 ping           12 transaction id, then 32 node key, then padding: see `extension.ts`
 *     2 pong           12 transaction id, 18 the endpoint that the ping came from, then the same
 *     3 call-me-maybe  18 x n endpoints
 *     112 port-guess   8 attempt, u8 is-answer, u8 round, u8 outer ports, 1 zero, i16 delta, 18 endpoint
 *
 * The last one is this project's own; other implementations take it for an unknown type, as we do those
 * of Tailscale's that are about its relays.
 *
 * An endpoint: 16 IPv6 address, IPv4 as IPv4-mapped, then 2 port.
 */
import { type Endpoint, ipBytes16, ipFromBytes } from "../addr.ts";
import { Reader, ShortInputError, Writer } from "../bytes.ts";
import { ENVELOPE_LENGTH } from "./envelope.ts";
import { type Extension, readExtension, writeExtension } from "./extension.ts";

export const TX_ID_LENGTH = 12;
const KEY_LENGTH = 32;
const ENDPOINT_LENGTH = 18;
const MESSAGE_HEADER_LENGTH = 2;
/** Of datagrams, with a node key and without an extension. */
export const PING_LENGTH = ENVELOPE_LENGTH + MESSAGE_HEADER_LENGTH + TX_ID_LENGTH + KEY_LENGTH;
export const PONG_LENGTH = ENVELOPE_LENGTH + MESSAGE_HEADER_LENGTH + TX_ID_LENGTH + ENDPOINT_LENGTH;

const TYPES = {
  "ping": 1,
  "pong": 2,
  "call-me-maybe": 3,
  "port-guess": 112,
} as const;
type MessageType = keyof typeof TYPES;
const OUTER_PORTS = ["one", "sequential", "random"] as const;
const ATTEMPT_LENGTH = 8;
const TYPE_NAMES = new Map<number, MessageType>(
  Object.entries(TYPES).map(([name, number]) => [number, name as MessageType]),
);

export interface Ping {
  type: "ping";
  txId: Uint8Array;
  /** The sender's claim of its node key, 32 bytes; believed only with the right disco key. */
  nodeKey?: Uint8Array;
  /** Behind a node key. */
  extension?: Extension;
  /** Zero bytes at the end; of one that came, all bytes behind the node key. */
  padding: number;
  /** Of a ping to be sent: bytes of the whole datagram, if it is not longer anyway. */
  padTo?: number;
}

export interface Pong {
  type: "pong";
  txId: Uint8Array;
  /** Where the ping was seen to come from. */
  source: Endpoint;
  extension?: Extension;
}

/** "I can be reached here; ping me." Comes through the coordinator only. */
export interface CallMeMaybe {
  type: "call-me-maybe";
  endpoints: Endpoint[];
}

/**
 * "Guess the ports of my NAT", or "Then guess mine": see `hard_nat.ts` of the daemon. Comes through
 * the coordinator only.
 */
export interface PortGuess {
  type: "port-guess";
  /** 8 bytes, the same in ask and answer. */
  attempt: Uint8Array;
  isAnswer: boolean;
  /** Attempts of this pair so far; 8 bits. */
  round: number;
  /** How the sender's NAT chooses outer ports. */
  ports: typeof OUTER_PORTS[number];
  /** From one port to the next, where they are "sequential"; else 0. */
  delta: number;
  /** The one outer port, or the last one that was seen; port 0 where ports are "random". */
  endpoint: Endpoint;
}

export type DiscoMessage = Ping | Pong | CallMeMaybe | PortGuess;

/** Too short, or of an unknown type: normal on an open network, drop it. */
export class DiscoFormatError extends Error {
  override name = "DiscoFormatError";
  constructor(readonly reason: "short" | "unknown_type", options?: ErrorOptions) {
    super(`Cannot decode disco message: ${reason}`, options);
  }
}

export function encodeMessage(message: DiscoMessage): Uint8Array<ArrayBuffer> {
  const writer = new Writer("network").u8(TYPES[message.type]).u8(0);
  switch (message.type) {
    case "ping":
      writePing(writer, message);
      break;
    case "pong":
      writeEndpoint(writer.bytes(message.txId), message.source);
      writeExtension(writer, message.extension);
      break;
    case "call-me-maybe":
      for (const endpoint of message.endpoints) writeEndpoint(writer, endpoint);
      break;
    case "port-guess":
      writer.bytes(message.attempt).u8(Number(message.isAnswer)).u8(message.round & 0xff);
      writer.u8(OUTER_PORTS.indexOf(message.ports)).u8(0).u16(message.delta & 0xffff);
      writeEndpoint(writer, message.endpoint);
      break;
    default:
      message satisfies never;
  }
  return writer.finish();
}

/** Throws {@link DiscoFormatError} and nothing else. */
export function decodeMessage(plaintext: Uint8Array): DiscoMessage {
  const reader = new Reader(plaintext, "network");
  try {
    const number = reader.u8();
    const version = reader.u8();
    const type = TYPE_NAMES.get(number);
    if (type === undefined) throw new DiscoFormatError("unknown_type");
    return decodeBody(type, version, reader);
  } catch (error) {
    if (error instanceof ShortInputError) throw new DiscoFormatError("short", { cause: error });
    throw error;
  }
}

function decodeBody(type: MessageType, version: number, reader: Reader): DiscoMessage {
  switch (type) {
    case "ping":
      return decodePing(reader);
    case "pong": {
      const pong = { type, txId: reader.bytes(TX_ID_LENGTH), source: readEndpoint(reader) };
      const extension = readExtension(reader.bytes());
      return { ...pong, ...(extension ? { extension } : {}) };
    }
    case "call-me-maybe":
      // What is not a list of endpoints, or of a later version, still means "try to reach me".
      if (version !== 0 || reader.left % ENDPOINT_LENGTH !== 0) return { type, endpoints: [] };
      return { type, endpoints: readEndpoints(reader) };
    case "port-guess":
      return readPortGuess(reader);
    default:
      return type satisfies never;
  }
}

function readPortGuess(reader: Reader): PortGuess {
  const attempt = reader.bytes(ATTEMPT_LENGTH);
  const [isAnswer, round] = [reader.u8() === 1, reader.u8()];
  const ports = OUTER_PORTS[reader.u8()];
  if (!ports) throw new DiscoFormatError("unknown_type");
  const delta = reader.skip(1).u16() << 16 >> 16;
  return {
    ...{ type: "port-guess", attempt, isAnswer, round, ports, delta },
    endpoint: readEndpoint(reader),
  };
}

/** Behind the transaction id, 32 or more bytes begin with the node key; zero means "no key". */
function decodePing(reader: Reader): Ping {
  const txId = reader.bytes(TX_ID_LENGTH);
  if (reader.left < KEY_LENGTH) return { type: "ping", txId, padding: reader.left };
  const nodeKey = reader.bytes(KEY_LENGTH);
  const padding = reader.left;
  if (nodeKey.every((byte) => byte === 0)) return { type: "ping", txId, padding };
  const extension = readExtension(reader.bytes());
  return { type: "ping", txId, nodeKey, ...(extension ? { extension } : {}), padding };
}

/** Zeros come last, so that whatever else a ping has counts for its size. */
function writePing(
  writer: Writer,
  { txId, nodeKey, extension, padding, padTo = 0 }: Ping,
): void {
  writer.bytes(txId).bytes(nodeKey ?? new Uint8Array(0));
  writeExtension(writer, extension);
  writer.zeros(Math.max(padding, padTo - ENVELOPE_LENGTH - writer.length));
}

function writeEndpoint(writer: Writer, { ip, port }: Endpoint): void {
  writer.bytes(ipBytes16(ip)).u16(port);
}

function readEndpoint(reader: Reader): Endpoint {
  return { ip: ipFromBytes(reader.bytes(16)), port: reader.u16() };
}

function readEndpoints(reader: Reader): Endpoint[] {
  const endpoints: Endpoint[] = [];
  while (reader.left > 0) endpoints.push(readEndpoint(reader));
  return endpoints;
}
