/**
 * The bytes of ipipou 0.1: bare IPv4 as data, and authentication packets on the same port. What it
 * cannot do, whoever speaks it: a captured packet is good from anywhere (here: once, and within a
 * window of time), and the server never proves who it is.
 *
 * An Ed25519 payload is 73 bytes, big endian:
 *
 *     0-63   signature over timestamp, salt and secret
 *     64-68  timestamp, Unix seconds
 *     69-72  salt, random
 */
import { type Endpoint, type Ip, ipBytes, ipFromBytes, parseIp } from "../../../addr.ts";
import { concatBytes, Reader, toHex, Writer } from "../../../bytes.ts";
import type { Signalling } from "../../../linux/mod.ts";
import { equalSecrets } from "../gretun/crypto.ts";
import { signer, verify } from "../../../ed25519.ts";
import type { NonceStore } from "../gretun/nonce_store.ts";

export const IPIPOU_DEFAULT_SECRET = "netprickle.com";
/** IPv4 20, UDP 8. */
export const BARE_OVERHEAD_BYTES = 28;
/** Data is IPv4 and says its own length; everything else is an authentication packet. */
export const IPIPOU_SIGNALLING = { kind: "not-ipv4" } as const satisfies Signalling;
export const MAX_TOKEN_LENGTH = 1472;
const SIGNATURE_LENGTH = 64;
const SIGNED_LENGTH = 9;
export const IPIPOU_SIGNED_LENGTH = SIGNATURE_LENGTH + SIGNED_LENGTH;

/** What one end has to authenticate with. */
export type IpipouScheme =
  | { kind: "token"; token: Uint8Array }
  | { kind: "key"; seed: Uint8Array; secret: string }
  | { kind: "none" };

/** The payload that a client sends; `salt` is 4 random bytes. */
export async function encodeIpipouAuth(
  scheme: IpipouScheme,
  unixSeconds: number,
  salt: Uint8Array,
): Promise<Uint8Array> {
  switch (scheme.kind) {
    case "token":
      return scheme.token;
    case "key":
      return await encodeSigned(scheme.seed, scheme.secret, unixSeconds, salt);
    case "none":
      return new Uint8Array();
    default:
      return scheme satisfies never;
  }
}

async function encodeSigned(
  seed: Uint8Array,
  secret: string,
  unixSeconds: number,
  salt: Uint8Array,
): Promise<Uint8Array> {
  const signed = new Writer("network", SIGNED_LENGTH)
    .u8(Math.floor(unixSeconds / 2 ** 32)).u32(unixSeconds % 2 ** 32).bytes(salt).finish();
  const sign = await signer(seed);
  const signature = await sign(concatBytes(signed, new TextEncoder().encode(secret)));
  return concatBytes(signature, signed);
}

/** How the server knows one client. All that is there has to hold. */
export interface IpipouClient {
  remoteIp?: Ip;
  remotePort?: number;
  token?: Uint8Array;
  /** Not looked at where there is a token. */
  publicKey?: Uint8Array;
  secret: string;
}

export type IpipouRefusal =
  | "wrong-address"
  | "bad-token"
  | "malformed"
  | "stale"
  | "replayed"
  | "bad-proof";

/** Cheap first: the signature is verified last. Nonces are kept by those who can sign. */
export async function checkIpipouAuth(
  client: IpipouClient,
  payload: Uint8Array,
  from: Endpoint,
  { wallMs, maxTimeDiscrepancyS, nonces }: {
    wallMs: number;
    /** 0: a timestamp of any time. */
    maxTimeDiscrepancyS: number;
    nonces: NonceStore;
  },
): Promise<IpipouRefusal | undefined> {
  if (client.remoteIp !== undefined && client.remoteIp !== from.ip) return "wrong-address";
  if (client.remotePort !== undefined && client.remotePort !== from.port) return "wrong-address";
  if (client.token) return equalSecrets(client.token, payload) ? undefined : "bad-token";
  if (!client.publicKey) return undefined;
  if (payload.length < IPIPOU_SIGNED_LENGTH) return "malformed";
  const reader = new Reader(payload, "network").skip(SIGNATURE_LENGTH);
  const seconds = reader.u8() * 2 ** 32 + reader.u32();
  const isStale = Math.abs(Math.floor(wallMs / 1000) - seconds) > maxTimeDiscrepancyS;
  if (maxTimeDiscrepancyS !== 0 && isStale) return "stale";
  const message = concatBytes(
    payload.subarray(SIGNATURE_LENGTH),
    new TextEncoder().encode(client.secret),
  );
  const signature = payload.subarray(0, SIGNATURE_LENGTH);
  if (!await verify(client.publicKey, signature, message)) return "bad-proof";
  return nonces.take(toHex(signature), wallMs) ? undefined : "replayed";
}

/**
 * The answer to a packet that moved the tunnel: signed where the server can and the packet was as long,
 * else the payload backwards (empty where the server has neither token nor key).
 */
export async function encodeIpipouReply(
  payload: Uint8Array,
  own: { seed?: Uint8Array; client: IpipouClient },
  unixSeconds: number,
  salt: Uint8Array,
): Promise<Uint8Array> {
  const { seed, client } = own;
  const hasRoom = payload.length >= IPIPOU_SIGNED_LENGTH;
  if (seed && client.publicKey && hasRoom) {
    return await encodeSigned(seed, client.secret, unixSeconds, salt);
  }
  return client.token || client.publicKey ? payload.slice().reverse() : new Uint8Array();
}

/** Inner addresses where none are given: 172.28.0.0+2N on the server, one higher on the client. */
export function ipipouAddresses(number: number): { server: Ip; client: Ip } {
  const base = new Reader(ipBytes(parseIp("172.28.0.0")), "network").u32() + 2 * number;
  const ip = (value: number) => ipFromBytes(new Writer("network", 4).u32(value).finish());
  return { server: ip(base), client: ip(base + 1) };
}

/** The FOU port where none is given. */
export const IPIPOU_BASE_PORT = 10_000;
