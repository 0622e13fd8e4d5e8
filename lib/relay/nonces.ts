/**
 * Nonces: who sends one back receives at the address that it was sent to. They are not stored: one
 * is a keyed hash of that address and of the minute, so a captured one is of no use from elsewhere.
 *
 *     0   4   number of the minute
 *     4   32  HMAC-SHA256 over that and the source
 */
import { concatBytes, Reader, Writer } from "../bytes.ts";
import type { Random } from "../edges.ts";

const WINDOW_MS = 60_000;
const HEAD_LENGTH = 4;
/** From the beginning of its minute until the end of the next one. */
export const NONCE_LIFETIME_MS = 2 * WINDOW_MS;

export class Nonces {
  readonly #key: Promise<CryptoKey>;

  /** The key is this run's alone. */
  constructor(random: Random) {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    this.#key = crypto.subtle.importKey("raw", random(32), algorithm, false, ["sign", "verify"]);
  }

  async make(source: string, nowMs: number): Promise<Uint8Array<ArrayBuffer>> {
    const head = new Writer("network", HEAD_LENGTH).u32(Math.floor(nowMs / WINDOW_MS)).finish();
    const mac = await crypto.subtle.sign("HMAC", await this.#key, covered(head, source));
    return concatBytes(head, new Uint8Array(mac));
  }

  /** Whether it was made for this source, in this minute or the last one. */
  async isValid(nonce: Uint8Array, source: string, nowMs: number): Promise<boolean> {
    const window = new Reader(nonce, "network").u32();
    const age = Math.floor(nowMs / WINDOW_MS) - window;
    if (age !== 0 && age !== 1) return false;
    const [head, mac] = [nonce.slice(0, HEAD_LENGTH), nonce.slice(HEAD_LENGTH)];
    return await crypto.subtle.verify("HMAC", await this.#key, mac, covered(head, source));
  }
}

function covered(head: Uint8Array, source: string): Uint8Array<ArrayBuffer> {
  return concatBytes(head, new TextEncoder().encode(source));
}
