/**
 * ChaCha20-Poly1305 (RFC 8439) by libsodium: by the host's own where it has one, which uses the
 * processor's vectors, else by its WebAssembly.
 */

/** Works in a memory of its own, at fixed places. */
export interface Aead {
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly places: Places;
  /** Encrypts so many bytes of `inner`, and writes the tag of these and of `covered` bytes. */
  encrypt(length: number, covered: number): void;
  /** The other way round; false: the tag is wrong. */
  decrypt(length: number, covered: number): boolean;
}

export interface Places {
  key: number;
  nonce: number;
  tag: number;
  /** What the tag covers and is not encrypted; `inner` is right behind. */
  header: number;
  inner: number;
}

export const HEADER_LENGTH = 16;
export const TAG_LENGTH = 16;
const LENGTH = 65_536 + 256;
/** Of 1.0.19 and later, and of those before; these functions are alike. */
const LIBRARIES = ["libsodium.so.26", "libsodium.so.23"];
const SYMBOLS = {
  sodium_init: { parameters: [], result: "i32" },
  encrypt: { // cipher, tag, tag's length, message, its length, covered, its length, -, nonce, key
    name: "crypto_aead_chacha20poly1305_ietf_encrypt_detached",
    // deno-fmt-ignore
    parameters: ["buffer", "buffer", "pointer", "buffer", "usize", "buffer", "usize", "pointer", "buffer", "buffer"],
    result: "i32",
  },
  decrypt: { // message, -, cipher, its length, tag, covered, its length, nonce, key; 0: good
    name: "crypto_aead_chacha20poly1305_ietf_decrypt_detached",
    // deno-fmt-ignore
    parameters: ["buffer", "pointer", "buffer", "usize", "buffer", "buffer", "usize", "buffer", "buffer"],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** Of libsodium's WebAssembly; lengths are of 64 bits, in two halves. */
export interface Sodium {
  readonly HEAPU8: Uint8Array<ArrayBuffer>;
  _malloc(length: number): number;
  _crypto_aead_chacha20poly1305_ietf_encrypt_detached(...args: number[]): number;
  _crypto_aead_chacha20poly1305_ietf_decrypt_detached(...args: number[]): number;
}

/** Loads no more than it needs. */
export async function openAead(): Promise<Aead> {
  const native = hostAead();
  if (native) return native;
  const { default: open } = await import("libsodium");
  return wasmAead(await (open as unknown as () => Promise<Sodium>)());
}

/** Undefined where this host has none. */
export function hostAead(): Aead | undefined {
  const sodium = openLibrary();
  if (!sodium) return undefined;
  const places = placesFrom(0);
  const memory = new Uint8Array(LENGTH);
  const [key, nonce, tag, header, inner] = [
    memory.subarray(places.key),
    memory.subarray(places.nonce),
    memory.subarray(places.tag),
    memory.subarray(places.header),
    memory.subarray(places.inner),
  ];
  return {
    ...{ memory, places },
    encrypt(length, covered) {
      // deno-fmt-ignore
      sodium.encrypt(inner, tag, null, inner, BigInt(length), header, BigInt(covered), null, nonce, key);
    },
    // deno-fmt-ignore
    decrypt: (length, covered) =>
      sodium.decrypt(inner, null, inner, BigInt(length), tag, header, BigInt(covered), nonce, key) === 0,
  };
}

function openLibrary() {
  for (const name of LIBRARIES) {
    try {
      const { symbols } = Deno.dlopen(name, SYMBOLS);
      if (symbols.sodium_init() >= 0) return symbols;
    } catch {
      // not there, or of a kind of its own
    }
  }
  return undefined;
}

export function wasmAead(sodium: Sodium): Aead {
  const places = placesFrom(sodium._malloc(LENGTH));
  const { key, nonce, tag, header, inner } = places;
  return {
    ...{ memory: sodium.HEAPU8, places },
    encrypt(length, covered) {
      // deno-fmt-ignore
      sodium._crypto_aead_chacha20poly1305_ietf_encrypt_detached(
        inner, tag, 0, inner, length, 0, header, covered, 0, 0, nonce, key,
      );
    },
    // deno-fmt-ignore
    decrypt: (length, covered) =>
      sodium._crypto_aead_chacha20poly1305_ietf_decrypt_detached(
        inner, 0, inner, length, 0, tag, header, covered, 0, nonce, key,
      ) === 0,
  };
}

function placesFrom(at: number): Places {
  const header = at + 128;
  return { key: at, nonce: at + 32, tag: at + 64, header, inner: header + HEADER_LENGTH };
}
