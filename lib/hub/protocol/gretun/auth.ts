/**
 * Who is who, in four messages: hello, challenge, auth, welcome. The hub keeps nothing until an
 * auth message has passed, in this order: a stamp of the last seconds (a comparison), the cookie
 * that only this hub can have sent to that very endpoint (one tag), the MAC that only hub and
 * client can make (one tag), the proof (a signature). A cookie is good once: the hub's stamps
 * rise, and each client's last one is remembered, so no clock of a client is needed.
 *
 * Both proofs cover a domain string, both identities, both endpoints as the other side sees them,
 * nonce, stamp and the ephemeral keys of the session: a captured message is of no use elsewhere,
 * later, or to another hub.
 */
import { type Endpoint, equalEndpoints } from "../../../addr.ts";
import { concatBytes, Writer } from "../../../bytes.ts";
import { signer, verify } from "../../../ed25519.ts";
import { deriveKey, equalTags, mac } from "./crypto.ts";
import { exchange, exchangePublic, identitySecret } from "./curves.ts";
import { type SessionKeys, sessionKeys } from "./seal.ts";
import {
  type Auth,
  authSignedPart,
  type Challenge,
  COOKIE_LENGTH,
  encodeAuth,
  encodeChallenge,
  encodeEndpoint,
  encodeWelcome,
  type Framing,
  type FRAMINGS,
  type Hello,
  NAME_LENGTH,
  PROOF_LENGTH,
  TAG_LENGTH,
  type Welcome,
  type WelcomeBody,
  welcomeSignedPart,
} from "./wire.ts";

const AUTH_DOMAIN = "gretun hub v1 auth";
const WELCOME_DOMAIN = "gretun hub v1 welcome";
/** From challenge to auth: a round trip, with room for a slow start of the client. */
export const COOKIE_LIFE_MS = 10_000;
const COOKIE_LIFE_US = BigInt(COOKIE_LIFE_MS) * 1000n;
/** As many as there can be in that time, and then some. */
const MAX_STAMPS = 100_000;
const IDENTITY_LENGTH = 32;

/** How one pair of hub and client knows each other. */
export type Credential =
  | {
    kind: "key";
    ownSeed: Uint8Array;
    ownPublic: Uint8Array;
    peerPublic: Uint8Array;
    /** 32 bytes; also needed by whoever has stolen a key. */
    secret?: Uint8Array;
  }
  /** SHA-256 of the token. */
  | { kind: "token"; key: Uint8Array }
  /** Where it comes from is all that counts; the cookie shows that it is there. */
  | { kind: "address" };

/** Why a packet was refused; each is counted. */
export const REFUSALS = [
  ...["malformed", "rate-limited", "unknown-client", "wrong-address", "wrong-hub-address"] as const,
  ...["stale", "replayed", "bad-cookie", "bad-mac", "bad-proof", "bad-token"] as const,
  ...["unknown-session", "bad-tag", "wrong-inner-address", "not-ip", "framing-mismatch"] as const,
  ...["link-failed", "out-of-reach", "against-policy", "router-message", "not-for-peer"] as const,
  ...["own-tunnel"] as const,
] as const;
export type Refusal = typeof REFUSALS[number];

/** What one side makes of a credential once, as it is dear. */
export class Pair {
  readonly credential: Credential;
  /** Of the MAC before the proof; absent where nothing is shared. */
  readonly #macKey: Uint8Array | undefined;

  /** Rejects for a public key that is none. */
  static async make(credential: Credential): Promise<Pair> {
    return new Pair(credential, await macKeyOf(credential));
  }

  private constructor(credential: Credential, macKey: Uint8Array | undefined) {
    this.credential = credential;
    this.#macKey = macKey;
  }

  /** A value per pair that both ends know and nobody else; undefined where nothing is shared. */
  sharedKey(label: string): Uint8Array | undefined {
    return this.#macKey && deriveKey(this.#macKey, label);
  }

  authMac(message: Uint8Array, nonce: Uint8Array): Uint8Array {
    const key = this.sharedKey("auth mac");
    if (!key) return new Uint8Array(TAG_LENGTH);
    return mac(key, nonce, message.subarray(0, message.length - TAG_LENGTH));
  }

  async prove(
    side: "client" | "hub",
    nonce: Uint8Array,
    transcript: Uint8Array,
  ): Promise<Uint8Array> {
    const proof = new Uint8Array(PROOF_LENGTH);
    const { credential } = this;
    if (credential.kind === "key") {
      const sign = await signer(credential.ownSeed);
      proof.set(await sign(transcript.slice()));
    }
    if (credential.kind === "token") proof.set(mac(this.sharedKey(side)!, nonce, transcript));
    return proof;
  }

  /** Whether the other side, which is `side`, made the proof. */
  async isProven(
    side: "client" | "hub",
    proof: Uint8Array,
    nonce: Uint8Array,
    transcript: Uint8Array,
  ): Promise<boolean> {
    const { credential } = this;
    switch (credential.kind) {
      case "key":
        return await verify(credential.peerPublic, proof, transcript);
      case "token":
        return equalTags(
          mac(this.sharedKey(side)!, nonce, transcript),
          proof.subarray(0, TAG_LENGTH),
        );
      case "address":
        return true;
      default:
        return credential satisfies never;
    }
  }

  /** Public keys of client and hub, then the secret; zeros for what there is not. */
  identities(self: "client" | "hub"): Uint8Array {
    const none = new Uint8Array(IDENTITY_LENGTH);
    if (this.credential.kind !== "key") return concatBytes(none, none, none);
    const { ownPublic, peerPublic, secret = none } = this.credential;
    return self === "client"
      ? concatBytes(ownPublic, peerPublic, secret)
      : concatBytes(peerPublic, ownPublic, secret);
  }
}

async function macKeyOf(credential: Credential): Promise<Uint8Array | undefined> {
  switch (credential.kind) {
    case "key": {
      const shared = await identitySecret(credential.ownSeed, credential.peerPublic);
      const { secret } = credential;
      return secret ? deriveKey(shared.map((byte, i) => byte ^ secret[i]!), "secret") : shared;
    }
    case "token":
      return deriveKey(credential.key, "token");
    case "address":
      return undefined;
    default:
      return credential satisfies never;
  }
}

/**
 * What a hub knows of the challenges it made: a key of this process makes their cookies, and the
 * stamps of the last seconds tell which of the answers are worth the look at a cookie.
 */
export class Cookies {
  readonly #key: Uint8Array;
  #lastStamp = 0n;
  /** Of challenges, oldest first. */
  readonly #stamps = new Set<bigint>();

  /** 32 random bytes. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  challenge(hello: Hello, from: Endpoint, wallMs: number): Uint8Array {
    const nowUs = microseconds(wallMs);
    const stamp = nowUs > this.#lastStamp ? nowUs : this.#lastStamp + 1n;
    this.#lastStamp = stamp;
    this.#forgetBefore(stamp - COOKIE_LIFE_US);
    this.#stamps.add(stamp);
    const cookie = this.#cookie({ ...hello, stamp }, from);
    return encodeChallenge({ nonce: hello.nonce, observed: from, stamp, cookie });
  }

  #forgetBefore(oldest: bigint): void {
    for (const stamp of this.#stamps) {
      if (stamp >= oldest && this.#stamps.size < MAX_STAMPS) return;
      this.#stamps.delete(stamp);
    }
  }

  /** Whether there was a challenge of this stamp a moment ago. Costs nothing. */
  wasMade(stamp: bigint, wallMs: number): boolean {
    const nowUs = microseconds(wallMs);
    // A set-back clock must not make stamps of the past last.
    const newest = nowUs > this.#lastStamp ? nowUs : this.#lastStamp;
    return stamp >= newest - COOKIE_LIFE_US && this.#stamps.has(stamp);
  }

  /** Whether it answers a challenge that went to that very endpoint. */
  isRight(auth: Pick<Auth, "name" | "nonce" | "stamp" | "cookie">, from: Endpoint): boolean {
    return equalTags(this.#cookie(auth, from), auth.cookie);
  }

  #cookie(
    { name, nonce, stamp }: { name: string; nonce: Uint8Array; stamp: bigint },
    from: Endpoint,
  ) {
    const unique = new Writer("network", COOKIE_LENGTH).u64(0n).u64(stamp).finish();
    const text = new TextEncoder().encode(name.padEnd(NAME_LENGTH, "\0"));
    return mac(this.#key, unique, concatBytes(nonce, encodeEndpoint(from), text));
  }
}

function microseconds(ms: number): bigint {
  return BigInt(Math.floor(ms)) * 1000n;
}

function authTranscript(
  self: "client" | "hub",
  pair: Pair,
  auth: Omit<Auth, "proof" | "mac">,
  client: Endpoint,
): Uint8Array {
  return concatBytes(
    domain(AUTH_DOMAIN),
    pair.identities(self),
    encodeEndpoint(client),
    authSignedPart(auth),
  );
}

function welcomeTranscript(
  self: "client" | "hub",
  pair: Pair,
  auth: Omit<Auth, "mac">,
  client: Endpoint,
  welcome: WelcomeBody,
): Uint8Array {
  return concatBytes(
    domain(WELCOME_DOMAIN),
    authTranscript(self, pair, auth, client),
    auth.proof,
    welcomeSignedPart(welcome),
  );
}

function domain(text: string): Uint8Array {
  return new TextEncoder().encode(text + "\0");
}

// --- client

/** A client's side between auth and welcome. */
export interface AuthInFlight {
  message: Uint8Array;
  auth: Omit<Auth, "mac">;
  /** This client as the hub sees it. */
  observed: Endpoint;
  ephemeralSecret: Uint8Array;
}

export interface AuthRequest {
  name: string;
  challenge: Challenge;
  hub: Endpoint;
  /** 32 random bytes. */
  ephemeralSecret: Uint8Array;
  framing: typeof FRAMINGS[number];
  encrypt: boolean;
}

export async function makeAuth(pair: Pair, request: AuthRequest): Promise<AuthInFlight> {
  const { name, challenge, hub, ephemeralSecret, framing, encrypt } = request;
  const { nonce, stamp, cookie, observed } = challenge;
  const ephemeral = await exchangePublic(ephemeralSecret);
  const body = { name, nonce, stamp, cookie, hub, ephemeral, framing, encrypt };
  const transcript = authTranscript("client", pair, body, observed);
  const proof = await pair.prove("client", nonce, transcript);
  const auth = { ...body, proof };
  const message = encodeAuth({ ...auth, mac: pair.authMac(encodeAuth(auth), nonce) });
  return { message, auth, observed, ephemeralSecret };
}

/** The session's keys when the welcome is the hub's own, else undefined. */
export async function acceptWelcome(
  pair: Pair,
  inFlight: AuthInFlight,
  welcome: Welcome,
): Promise<SessionKeys | undefined> {
  const { auth, observed, ephemeralSecret } = inFlight;
  const transcript = welcomeTranscript("client", pair, auth, observed, welcome);
  if (!await pair.isProven("hub", welcome.proof, auth.nonce, transcript)) return undefined;
  try {
    return sessionKeys(await exchange(ephemeralSecret, welcome.ephemeral), welcome.encrypt);
  } catch {
    return undefined; // of low order
  }
}

// --- hub

export interface AuthCheck {
  auth: Auth;
  /** The auth message itself. */
  bytes: Uint8Array;
  from: Endpoint;
  pair: Pair;
  /** Where the client has to come from; port 0 is any. */
  remote?: Endpoint;
  /** Where clients reach this hub; none: not looked at. */
  publicEndpoints: readonly Endpoint[];
  /** The stamp of the last auth that was taken from this client. */
  lastStamp: bigint;
}

/** All that comes after the cookie; dearest last. */
export async function checkAuth(check: AuthCheck): Promise<Refusal | undefined> {
  const { auth, bytes, from, pair, remote, publicEndpoints, lastStamp } = check;
  if (remote && !isFrom(remote, from)) return "wrong-address";
  if (auth.stamp <= lastStamp) return "replayed";
  if (publicEndpoints.length > 0 && !publicEndpoints.some((e) => equalEndpoints(e, auth.hub))) {
    return "wrong-hub-address";
  }
  if (!equalTags(pair.authMac(bytes, auth.nonce), auth.mac)) return "bad-mac";
  const transcript = authTranscript("hub", pair, auth, from);
  const isProven = await pair.isProven("client", auth.proof, auth.nonce, transcript);
  return isProven ? undefined : "bad-proof";
}

function isFrom(remote: Endpoint, from: Endpoint): boolean {
  return remote.ip === from.ip && (remote.port === 0 || remote.port === from.port);
}

export interface WelcomeRequest extends Omit<WelcomeBody, "nonce" | "ephemeral" | "framing"> {
  framing: Framing;
  /** 32 random bytes. */
  ephemeralSecret: Uint8Array;
}

/** The answer to an auth that was taken; undefined for an ephemeral key of low order. */
export async function makeWelcome(
  pair: Pair,
  auth: Auth,
  from: Endpoint,
  { ephemeralSecret, ...rest }: WelcomeRequest,
): Promise<{ message: Uint8Array; keys: SessionKeys } | undefined> {
  let secret;
  try {
    secret = await exchange(ephemeralSecret, auth.ephemeral);
  } catch {
    return undefined;
  }
  const ephemeral = await exchangePublic(ephemeralSecret);
  const body: WelcomeBody = { ...rest, nonce: auth.nonce, ephemeral };
  const transcript = welcomeTranscript("hub", pair, auth, from, body);
  const proof = await pair.prove("hub", auth.nonce, transcript);
  return { message: encodeWelcome({ ...body, proof }), keys: sessionKeys(secret, rest.encrypt) };
}
