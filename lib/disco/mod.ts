/**
 * Tailscale's disco format: sealed messages by which two nodes find a path to each other.
 *
 * @example
 * const key = boxKey(ownPrivate, peerDiscoKey);
 * const datagram = seal(encodeMessage({ type: "call-me-maybe", endpoints }), own, key, random);
 */
export { boxKey } from "./box.ts";
export { DISCO_PATTERN, type Envelope, isDisco, open, readEnvelope, seal } from "./envelope.ts";
export { EPOCH_LENGTH, type Extension, EXTENSION_LENGTH, SESSION_LENGTH } from "./extension.ts";
export {
  decodeMessage,
  DiscoFormatError,
  type DiscoMessage,
  encodeMessage,
  type Ping,
  PING_LENGTH,
  type Pong,
  PONG_LENGTH,
  type PortGuess,
} from "./messages.ts";
