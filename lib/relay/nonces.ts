/**
 * Nonces: who sends one back receives at the address that it was sent to. They are not stored: one
 * is a keyed hash of that address and of the time, so a captured one is of no use from elsewhere.
 *
 *     0   4   when it was made, in tenths of a second of the relay's run
 *     4   32  HMAC-SHA256 over that and the source
 */
import { concatBytes, Reader, Writer } from "../bytes.ts";
import type { Random } from "../edges.ts";

const TICK_MS = 100;
const HEAD_LENGTH = 4;
export const NONCE_LIFETIME_MS = 120_000;

export class Nonces {
  readonly #key: Promise<CryptoKey>;

  /** The key is this run's alone. */
  constructor(random: Random) {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    this.#key = crypto.subtle.importKey("raw", random(32), algorithm, false, ["sign", "verify"]);
  }

  async make(source: string, nowMs: number): Promise<Uint8Array<ArrayBuffer>> {
    const head = new Writer("network", HEAD_LENGTH).u32(Math.floor(nowMs / TICK_MS)).finish();
    const mac = await crypto.subtle.sign("HMAC", await this.#key, covered(head, source));
    return concatBytes(head, new Uint8Array(mac));
  }

  /** When it was made for this source; undefined for one that was not, or too long ago. */
  async madeMs(nonce: Uint8Array, source: string, nowMs: number): Promise<number | undefined> {
    const madeMs = new Reader(nonce, "network").u32() * TICK_MS;
    if (madeMs > nowMs || madeMs <= nowMs - NONCE_LIFETIME_MS) return undefined;
    const [head, mac] = [nonce.slice(0, HEAD_LENGTH), nonce.slice(HEAD_LENGTH)];
    const isOurs = await crypto.subtle.verify("HMAC", await this.#key, mac, covered(head, source));
    return isOurs ? madeMs : undefined;
  }
}

function covered(head: Uint8Array, source: string): Uint8Array<ArrayBuffer> {
  return concatBytes(head, new TextEncoder().encode(source));
}
