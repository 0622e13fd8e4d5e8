/**
 * Text with a signature, as it goes through hands that need not be trusted. It stays the text that was
 * signed: nobody on the way writes it anew.
 */
import { fromBase64, toBase64 } from "../../bytes.ts";
import { SIGNATURE_LENGTH } from "../../ed25519.ts";
import { ApiError, type Codec, nested, parsed, required, string } from "./json.ts";

/** 32 endpoints of IPv6 with all else are 3 KB. */
const MAX_TEXT_LENGTH = 6 * 1024;

export interface Signed {
  text: string;
  signature: Uint8Array;
}

const TEXT: Codec<string> = {
  json: (text) => text,
  parse(value, field) {
    const text = string(value, field);
    if (text.length <= MAX_TEXT_LENGTH) return text;
    throw new ApiError(`${field} is longer than ${MAX_TEXT_LENGTH} characters`);
  },
};

const SIGNATURE: Codec<Uint8Array> = {
  json: toBase64,
  parse(value, field) {
    const signature = parsed(field, () => fromBase64(string(value, field)));
    if (signature.length === SIGNATURE_LENGTH) return signature;
    throw new ApiError(`${field} is ${signature.length} bytes: want ${SIGNATURE_LENGTH}`);
  },
};

export const SIGNED: Codec<Signed> = nested({
  text: required("text", TEXT),
  signature: required("signature", SIGNATURE),
});
