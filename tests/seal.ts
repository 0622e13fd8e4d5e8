/** Sealed packets, made the slow way. */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import type { SealedSession } from "../lib/engine/mod.ts";
import { counterNonce, counterTag } from "../lib/hub/protocol/gretun/crypto.ts";
import { SEAL_HEADER_LENGTH } from "../lib/hub/protocol/gretun/seal.ts";
import { SESSION_LENGTH, TAG_LENGTH } from "../lib/hub/protocol/gretun/wire.ts";
import { SessionCounters } from "../lib/session_counters.ts";

/** Of a sealer, whose counter goes on. */
export function seal(
  { shared }: { shared: SealedSession },
  inner: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { id, sendKey, encrypt, memory } = shared;
  const counter = BigInt(new SessionCounters(memory).next());
  const packet = new Uint8Array(SEAL_HEADER_LENGTH + inner.length + TAG_LENGTH);
  packet.set(id);
  new DataView(packet.buffer).setBigUint64(SESSION_LENGTH, counter);
  if (encrypt) {
    const header = packet.subarray(0, SEAL_HEADER_LENGTH);
    chacha20poly1305(sendKey, counterNonce(counter), header)
      .encrypt(inner, packet.subarray(SEAL_HEADER_LENGTH));
  } else {
    packet.set(inner, SEAL_HEADER_LENGTH);
    const covered = packet.subarray(0, SEAL_HEADER_LENGTH + inner.length);
    packet.set(counterTag(sendKey, counter, covered), covered.length);
  }
  return packet;
}
