/** The binding exchange (RFC 8489 section 2) as bytes: "from where do you see me?" */
import type { Endpoint, Family } from "../addr.ts";
import {
  ATTRIBUTE,
  type Change,
  changeRequest,
  encodeWithFingerprint,
  errorCode,
  filling,
  FINGERPRINT_LENGTH,
  fingerprintFits,
  otherAddress,
  readChangeRequest,
  readMappedAddress,
  readOtherAddress,
  readSoftware,
  responseOrigin,
  software,
  unknownAttributes,
  unknownRequired,
  xorMappedAddress,
} from "./attributes.ts";
import {
  ATTRIBUTE_HEADER_LENGTH,
  BINDING_ERROR,
  BINDING_REQUEST,
  BINDING_SUCCESS,
  decodeStun,
  encodeStun,
  type Strictness,
  type StunAttribute,
  StunFormatError,
  type StunMessage,
} from "./message.ts";

/**
 * With spaces that make a request as long as the longest answer of our server, which has three
 * addresses and a fingerprint: 64 bytes over IPv4 and 100 over IPv6. PADDING (RFC 5780) would be
 * refused by servers that do not know it.
 */
const SOFTWARE = "gretun node".padEnd(32);
const SOFTWARE_6 = SOFTWARE.padEnd(68);
/**
 * Of nodes of version 0.1, whose requests have room for the other place or for a FINGERPRINT, not
 * for both: the other place is how they learn what NAT they are behind.
 */
const OLD_SOFTWARE: readonly string[] = ["gretun node", "gretun node".padEnd(36)];
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
  /** It has one itself. */
  wantsFingerprint: boolean;
  lengthBytes: number;
}

/** What a server says of itself. */
export interface ToldPlaces {
  /** Where the answer comes from. */
  origin?: Endpoint;
  /** Where else an answer could come from. */
  other?: Endpoint;
}

export function encodeBindingRequest(
  txId: Uint8Array,
  { family = 4, change, padTo = 0 }: { family?: Family; change?: Change; padTo?: number } = {},
): Uint8Array<ArrayBuffer> {
  const attributes = [software(family === 4 ? SOFTWARE : SOFTWARE_6)];
  if (change) attributes.unshift(changeRequest(change));
  const least = encodeStun({ type: BINDING_REQUEST, txId, attributes }).length + FINGERPRINT_LENGTH;
  const fillingLength = padTo - least - ATTRIBUTE_HEADER_LENGTH;
  if (fillingLength >= 0) attributes.push(filling(fillingLength));
  return encodeWithFingerprint({ type: BINDING_REQUEST, txId, attributes });
}

/**
 * Unknown attributes are ignored, whatever their number. Throws {@link StunFormatError} for all
 * that is not a success response with an address, and where a FINGERPRINT is there but wrong. Some
 * servers know no padding or no cookie: that an answer is one is told by its transaction id.
 */
export function decodeBindingAnswer(bytes: Uint8Array): BindingAnswer {
  const read = (padding: Strictness["padding"]) =>
    readAnswer(bytes, decodeStun(bytes, { hasCookie: false, padding }));
  try {
    return read("but-at-the-end");
  } catch (error) {
    if (!(error instanceof StunFormatError) || isMarked(bytes)) throw error;
    try {
      return read("nowhere");
    } catch {
      throw error;
    }
  }
}

/** Whether it ends as a FINGERPRINT does: then all of it is as that says, or nothing. */
function isMarked(bytes: Uint8Array): boolean {
  const [high, low] = bytes.subarray(-FINGERPRINT_LENGTH);
  return high! * 256 + low! === ATTRIBUTE.FINGERPRINT;
}

function readAnswer(bytes: Uint8Array, message: StunMessage): BindingAnswer {
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
    const fits = fingerprintFits(bytes, message);
    if (message.type !== BINDING_REQUEST || fits === false) return undefined;
    const change = readChangeRequest(message);
    const unknown = unknownRequired(message);
    return {
      txId: message.txId,
      ...(change ? { change } : {}),
      unknown,
      wantsFingerprint: fits === true && !OLD_SOFTWARE.includes(readSoftware(message) ?? ""),
      lengthBytes: bytes.length,
    };
  } catch {
    return undefined;
  }
}

/**
 * The answer to a request that came `from` there. The source of a request may be forged: whatever
 * is not needed is told only where the request has room for it, so that the answer is no longer. A
 * bare request of 20 bytes still makes 32 (44 over IPv6): `AnswerLimit` says who gets them.
 */
export function encodeBindingAnswer(
  request: BindingRequest,
  from: Endpoint,
  told: () => ToldPlaces = () => ({}),
): Uint8Array<ArrayBuffer> {
  const { txId, unknown } = request;
  if (unknown.length > 0) return encodeRefusal(request, unknown);
  const least = [xorMappedAddress(from, txId)];
  const shortest = encodeAnswer(request, BINDING_SUCCESS, least);
  if (shortest.length >= request.lengthBytes) return shortest;
  const { origin, other } = told();
  return fitted(request, BINDING_SUCCESS, least, [
    ...(other ? [otherAddress(other)] : []),
    ...(origin ? [responseOrigin(origin)] : []),
  ]);
}

/** RFC 5780 section 6.1: what a server says that has no other place to answer from. */
export function encodeChangeRefusal(request: BindingRequest): Uint8Array<ArrayBuffer> {
  return encodeRefusal(request, [ATTRIBUTE.CHANGE_REQUEST]);
}

function encodeRefusal(
  request: BindingRequest,
  types: readonly number[],
): Uint8Array<ArrayBuffer> {
  const least = [errorCode(UNKNOWN_ATTRIBUTE)];
  return fitted(request, BINDING_ERROR, least, [unknownAttributes(types)]);
}

/** As many of `more`, from the first, as make the answer no longer than its request. */
function fitted(
  request: BindingRequest,
  type: number,
  least: readonly StunAttribute[],
  more: readonly StunAttribute[],
): Uint8Array<ArrayBuffer> {
  const answer = encodeAnswer(request, type, [...least, ...more]);
  return answer.length <= request.lengthBytes || more.length === 0
    ? answer
    : fitted(request, type, least, more.slice(0, -1));
}

function encodeAnswer(
  { txId, wantsFingerprint }: BindingRequest,
  type: number,
  attributes: readonly StunAttribute[],
): Uint8Array<ArrayBuffer> {
  const message = { type, txId, attributes };
  return wantsFingerprint ? encodeWithFingerprint(message) : encodeStun(message);
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
