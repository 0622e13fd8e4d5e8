/** The tokens there are, and which of them lets a node join. Pure: time is an argument. */
import { toHex } from "../bytes.ts";
import type { TokenRecord } from "./api.ts";
import { Refusal } from "./refusal.ts";

const ID_DIGITS = 8;

export interface TokenWishes {
  expiresMs?: number;
  isReusable?: true;
  isEphemeral?: true;
  isApproving?: true;
  tags: string[];
}

export async function hashOf(secret: Uint8Array): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", Uint8Array.from(secret))));
}

export class Tokens {
  readonly #byHash = new Map<string, TokenRecord>();

  constructor(stored: readonly TokenRecord[]) {
    for (const token of stored) this.#byHash.set(token.hash, token);
  }

  /** Without a token anybody may join; one that was revoked is one. */
  get areThere(): boolean {
    return this.#byHash.size > 0;
  }

  all(): TokenRecord[] {
    return [...this.#byHash.values()].toSorted((a, b) => a.createdMs - b.createdMs);
  }

  /** The token of that secret, once it is stored. */
  make(hash: string, wishes: TokenWishes, nowMs: number): TokenRecord {
    return { ...wishes, id: hash.slice(0, ID_DIGITS), hash, createdMs: nowMs, uses: 0 };
  }

  put(token: TokenRecord): void {
    this.#byHash.set(token.hash, token);
  }

  withId(id: string): TokenRecord | undefined {
    return this.all().find((token) => token.id === id);
  }

  /** The token by which a node may join now. Throws {@link Refusal}. */
  check(hash: string | undefined, nowMs: number): TokenRecord {
    const refuse = (why: string) => new Refusal(403, why, undefined, "token");
    if (hash === undefined) {
      throw refuse("this coordinator takes new nodes with a token only: ask its operator for one");
    }
    const token = this.#byHash.get(hash);
    if (!token) throw refuse("this coordinator does not know that token");
    if (token.isRevoked) throw refuse(`token ${token.id} was revoked`);
    if (token.expiresMs !== undefined && token.expiresMs <= nowMs) {
      throw refuse(`token ${token.id} has expired`);
    }
    if (token.uses > 0 && !token.isReusable) throw refuse(`token ${token.id} was used already`);
    return token;
  }
}
