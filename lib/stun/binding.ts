/** The binding exchange (RFC 8489 section 2) as bytes: "from where do you see me?" */
import type { Endpoint } from "../addr.ts";
import {
  encodeWithFingerprint,
  errorCode,
  fingerprintFits,
  readMappedAddress,
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
  StunFormatError,
} from "./message.ts";

/** Makes a request of 44 bytes: no shorter than a bare answer, which is 32 (IPv4) or 44 (IPv6). */
const SOFTWARE = "gretun node";
const UNKNOWN_ATTRIBUTE = 420;

export interface BindingAnswer {
  txId: Uint8Array;
  mapped: Endpoint;
}

export function encodeBindingRequest(txId: Uint8Array): Uint8Array<ArrayBuffer> {
  const attributes = [software(SOFTWARE)];
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
  return { txId: message.txId, mapped: readMappedAddress(message) };
}

/**
 * The server's whole work: the answer to a request that came `from` there; undefined for what is
 * no intact binding request. Nothing is demanded of a request: neither FINGERPRINT nor SOFTWARE.
 *
 * The answer is as short as the protocol has it, for the source of a request may be forged. A bare
 * request of 20 bytes still brings 32 (44 over IPv6), 1.6 (2.2) times as much; an error
 * answer is at most 1.5 times as long as its request.
 */
export function answerBinding(
  request: Uint8Array,
  from: Endpoint,
): Uint8Array<ArrayBuffer> | undefined {
  const message = decodeRequest(request);
  if (!message) return undefined;
  const { txId } = message;
  const unknown = unknownRequired(message);
  if (unknown.length > 0) {
    const attributes = [errorCode(UNKNOWN_ATTRIBUTE), unknownAttributes(unknown)];
    return encodeStun({ type: BINDING_ERROR, txId, attributes });
  }
  const attributes = [xorMappedAddress(from, txId)];
  return encodeStun({ type: BINDING_SUCCESS, txId, attributes });
}

function decodeRequest(bytes: Uint8Array) {
  try {
    const message = decodeStun(bytes);
    const intact = fingerprintFits(bytes, message) !== false;
    return message.type === BINDING_REQUEST && intact ? message : undefined;
  } catch {
    return undefined;
  }
}
