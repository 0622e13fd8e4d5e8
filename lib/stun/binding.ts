/** The binding exchange (RFC 8489 section 2) as bytes: "from where do you see me?" */
import type { Endpoint, Family } from "../addr.ts";
import {
  ATTRIBUTE,
  type Change,
  changeRequest,
  encodeWithFingerprint,
  errorCode,
  fingerprintFits,
  otherAddress,
  readChangeRequest,
  readMappedAddress,
  readOtherAddress,
  software,
  unknownAttributes,
  unknownRequired,
  xorMappedAddress,
} from "./attributes.ts";
import {
  BINDING_ERROR,
  BINDING_REQUEST,
  BINDING_SUCCESS,
  decodeStun,
  encodeStun,
  type StunAttribute,
  StunFormatError,
} from "./message.ts";

/** Makes a request of 44 bytes. */
const SOFTWARE = "gretun node";
/**
 * And of 68 bytes, with spaces: no request is shorter than the longest answer of our server, which
 * is two addresses, 44 bytes over IPv4 and 68 over IPv6.
 */
const SOFTWARE_6 = SOFTWARE.padEnd(36);
const UNKNOWN_ATTRIBUTE = 420;

export interface BindingAnswer {
  txId: Uint8Array;
  mapped: Endpoint;
  /** Where else the server can answer from (RFC 5780), as it says. */
  other?: Endpoint;
}

export interface BindingRequest {
  txId: Uint8Array;
  /** Where the answer is wanted from; absent: from where the request goes. */
  change?: Change;
  /** Comprehension-required attributes that are not known here. */
  unknown: number[];
  lengthBytes: number;
}

export function encodeBindingRequest(
  txId: Uint8Array,
  { family = 4, change }: { family?: Family; change?: Change } = {},
): Uint8Array<ArrayBuffer> {
  const attributes = [software(family === 4 ? SOFTWARE : SOFTWARE_6)];
  if (change) attributes.unshift(changeRequest(change));
  return encodeWithFingerprint({ type: BINDING_REQUEST, txId, attributes });
}

/**
 * Unknown attributes are ignored, whatever their number. Throws {@link StunFormatError} for all
 * that is not a success response with an address, and where a FINGERPRINT is there but wrong.
 */
export function decodeBindingAnswer(bytes: Uint8Array): BindingAnswer {
  const message = decodeStun(bytes);
  if (message.type !== BINDING_SUCCESS) {
    throw new StunFormatError(`STUN message of type 0x${message.type.toString(16)}: no success`);
  }
  if (fingerprintFits(bytes, message) === false) {
    throw new StunFormatError("STUN message with a wrong fingerprint");
  }
  const { txId } = message;
  const other = readOtherAddress(message);
  return { txId, mapped: readMappedAddress(message), ...(other ? { other } : {}) };
}

/**
 * Undefined for what is no intact binding request. Nothing is demanded of a request: neither
 * FINGERPRINT nor SOFTWARE.
 */
export function decodeBindingRequest(bytes: Uint8Array): BindingRequest | undefined {
  try {
    const message = decodeStun(bytes);
    const isIntact = fingerprintFits(bytes, message) !== false;
    if (message.type !== BINDING_REQUEST || !isIntact) return undefined;
    const change = readChangeRequest(message);
    const unknown = unknownRequired(message);
    const { txId } = message;
    return { txId, ...(change ? { change } : {}), unknown, lengthBytes: bytes.length };
  } catch {
    return undefined;
  }
}

/**
 * The answer to a request that came `from` there. `other` is told where the request has room for
 * it: the source of a request may be forged, so that an answer is as short as the protocol has it.
 * A bare request of 20 bytes still brings 32 (44 over IPv6), 1.6 (2.2) times as much; an error
 * answer is at most 1.5 times as long as its request.
 */
export function encodeBindingAnswer(
  request: BindingRequest,
  from: Endpoint,
  other?: Endpoint,
): Uint8Array<ArrayBuffer> {
  const { txId, unknown, lengthBytes } = request;
  if (unknown.length > 0) return encodeRefusal(txId, unknown);
  const mapped = xorMappedAddress(from, txId);
  const encode = (attributes: StunAttribute[]) =>
    encodeStun({ type: BINDING_SUCCESS, txId, attributes });
  const long = other && encode([mapped, otherAddress(other)]);
  return long && long.length <= lengthBytes ? long : encode([mapped]);
}

/** RFC 5780 section 6.1: what a server says that has no other place to answer from. */
export function encodeChangeRefusal({ txId }: BindingRequest): Uint8Array<ArrayBuffer> {
  return encodeRefusal(txId, [ATTRIBUTE.CHANGE_REQUEST]);
}

function encodeRefusal(txId: Uint8Array, types: readonly number[]): Uint8Array<ArrayBuffer> {
  const attributes = [errorCode(UNKNOWN_ATTRIBUTE), unknownAttributes(types)];
  return encodeStun({ type: BINDING_ERROR, txId, attributes });
}

/** The whole work of a server with one port; undefined for what is no intact binding request. */
export function answerBinding(
  bytes: Uint8Array,
  from: Endpoint,
): Uint8Array<ArrayBuffer> | undefined {
  const request = decodeBindingRequest(bytes);
  if (request?.change && request.unknown.length === 0) return encodeChangeRefusal(request);
  return request && encodeBindingAnswer(request, from);
}
