/**
 * Our own hub protocol on the wire, version 1, big endian. Every message begins with
 *
 *     0-3    magic e7 67 72 74: no GRE header (version 7), no IPv4 packet, no STUN, no disco
 *     4      version, 1
 *     5      type
 *     6-7    zero
 *
 * and has a fixed length; longer ones are read as far as this version knows. No answer is longer
 * than its question, so a hub never amplifies a forged packet.
 *
 *     hello      96  nonce 16, name 32, zeros
 *     challenge  66  nonce 16, observed endpoint 18, stamp 8, cookie 16
 *     auth      256  name 32, nonce 16, stamp 8, cookie 16, hub endpoint 18, ephemeral 32,
 *                    framing 1, flags 1, proof 64, zeros, MAC 16 (the last bytes)
 *     welcome   200  nonce 16, ephemeral 32, session 8, status 1, framing 1, flags 1, zero 1,
 *                    keepalive 4 and reauth 4 (ms), client address 17, hub address 17,
 *                    hub endpoint as the hub sees it 18, proof 64, zeros
 *     keepalive  64  session 8, counter 8, flags 1, zeros, tag 16 (the last bytes)
 *     alive      58  session 8, counter 8, observed endpoint 18, tag 16
 *     reset      24  session 8, counter 8: the hub does not know that session
 *
 * An endpoint is 16 bytes of address (IPv4 as IPv4-mapped IPv6) and a port; a name is padded with
 * zeros; an address with prefix length 0 is none.
 */
import { type Cidr, type Endpoint, ipBytes16, ipFromBytes, isUnspecified } from "../../../addr.ts";
import { Reader, startsWithBytes, Writer } from "../../../bytes.ts";
import type { Signalling } from "../../../linux/mod.ts";

export const MAGIC = Uint8Array.of(0xe7, 0x67, 0x72, 0x74);
/** What is a message and no data, on one port. */
export const HUB_SIGNALLING = {
  kind: "patterns",
  any: [{ offset: 0, bytes: MAGIC }],
} as const satisfies Signalling;
export const VERSION = 1;
export const NONCE_LENGTH = 16;
export const NAME_LENGTH = 32;
export const COOKIE_LENGTH = 16;
export const PROOF_LENGTH = 64;
export const TAG_LENGTH = 16;
export const SESSION_LENGTH = 8;
const HEADER_LENGTH = 8;
const ENDPOINT_LENGTH = 18;

export const TYPE = {
  hello: 1,
  challenge: 2,
  auth: 3,
  welcome: 4,
  keepalive: 5,
  alive: 6,
  reset: 7,
} as const;
export type MessageType = keyof typeof TYPE;

export const MESSAGE_LENGTH: Record<MessageType, number> = {
  hello: 96,
  challenge: 66,
  auth: 256,
  welcome: 200,
  keepalive: 64,
  alive: 58,
  reset: 24,
};

/** How inner packets travel. "any" is only asked for: the hub says which. */
export const FRAMINGS = ["any", "sealed", "gre", "ipip"] as const;
export type Framing = Exclude<typeof FRAMINGS[number], "any">;

/** What the hub says to a client that has proven who it is. */
export const WELCOME_STATUS = ["ok", "framing-mismatch", "link-failed"] as const;
export type WelcomeStatus = typeof WELCOME_STATUS[number];

const FLAG_ENCRYPT = 1;
const FLAG_BYE = 1;

export interface Hello {
  nonce: Uint8Array;
  name: string;
}

export interface Challenge {
  /** Of the hello. */
  nonce: Uint8Array;
  /** The client as the hub sees it. */
  observed: Endpoint;
  /** The hub's time in microseconds since 1970; rises with every challenge. */
  stamp: bigint;
  /** Proves to the hub that it sent this challenge to that endpoint. */
  cookie: Uint8Array;
}

export interface Auth {
  name: string;
  nonce: Uint8Array;
  stamp: bigint;
  cookie: Uint8Array;
  /** The hub as the client sees it. */
  hub: Endpoint;
  /** X25519. */
  ephemeral: Uint8Array;
  framing: typeof FRAMINGS[number];
  /** The client insists on encryption; the hub may too. */
  encrypt: boolean;
  proof: Uint8Array;
  mac: Uint8Array;
}

export interface Welcome {
  nonce: Uint8Array;
  ephemeral: Uint8Array;
  session: Uint8Array;
  status: WelcomeStatus;
  framing: Framing;
  encrypt: boolean;
  keepaliveMs: number;
  /** After which the client authenticates again. */
  reauthMs: number;
  clientAddress?: Cidr;
  hubAddress?: Cidr;
  /** The hub as it sees itself; the unspecified address when it listens on all. */
  hub: Endpoint;
  proof: Uint8Array;
}

export interface Keepalive {
  session: Uint8Array;
  counter: bigint;
  /** The client stops. */
  bye: boolean;
  tag: Uint8Array;
}

export interface Alive {
  session: Uint8Array;
  counter: bigint;
  observed: Endpoint;
  tag: Uint8Array;
}

export interface Reset {
  session: Uint8Array;
  counter: bigint;
}

/** The type of a message of this version, by header and length; undefined for anything else. */
export function messageType(bytes: Uint8Array): MessageType | undefined {
  if (bytes.length < HEADER_LENGTH || !startsWithBytes(bytes, MAGIC)) return undefined;
  if (bytes[4] !== VERSION) return undefined;
  const type = (Object.keys(TYPE) as MessageType[]).find((name) => TYPE[name] === bytes[5]);
  return type && bytes.length >= MESSAGE_LENGTH[type] ? type : undefined;
}

export function encodeHello({ nonce, name }: Hello): Uint8Array<ArrayBuffer> {
  return padded("hello", start("hello").bytes(nonce).bytes(encodeName(name)));
}

export function decodeHello(bytes: Uint8Array): Hello {
  const reader = body(bytes);
  return { nonce: reader.bytes(NONCE_LENGTH), name: decodeName(reader) };
}

export function encodeChallenge(message: Challenge): Uint8Array<ArrayBuffer> {
  const { nonce, observed, stamp, cookie } = message;
  return start("challenge").bytes(nonce).bytes(encodeEndpoint(observed)).u64(stamp).bytes(cookie)
    .finish();
}

export function decodeChallenge(bytes: Uint8Array): Challenge {
  const reader = body(bytes);
  return {
    nonce: reader.bytes(NONCE_LENGTH),
    observed: decodeEndpoint(reader),
    stamp: reader.u64(),
    cookie: reader.bytes(COOKIE_LENGTH),
  };
}

/** All of an auth message but proof and MAC, which are made over it. */
export type AuthBody = Omit<Auth, "proof" | "mac">;

function authBody(message: AuthBody): Writer {
  const { name, nonce, stamp, cookie, hub, ephemeral, framing, encrypt } = message;
  return start("auth").bytes(encodeName(name)).bytes(nonce).u64(stamp).bytes(cookie)
    .bytes(encodeEndpoint(hub)).bytes(ephemeral).u8(FRAMINGS.indexOf(framing))
    .u8(encrypt ? FLAG_ENCRYPT : 0);
}

/** What the client's proof covers of the message. */
export function authSignedPart(message: AuthBody): Uint8Array<ArrayBuffer> {
  return authBody(message).finish();
}

/** The message with zeros for its MAC: what the MAC covers is all before it. */
export function encodeAuth(message: Omit<Auth, "mac"> & { mac?: Uint8Array }) {
  const bytes = padded("auth", authBody(message).bytes(message.proof));
  if (message.mac) bytes.set(message.mac, bytes.length - TAG_LENGTH);
  return bytes;
}

export function decodeAuth(bytes: Uint8Array): Auth {
  const reader = body(bytes);
  return {
    name: decodeName(reader),
    nonce: reader.bytes(NONCE_LENGTH),
    stamp: reader.u64(),
    cookie: reader.bytes(COOKIE_LENGTH),
    hub: decodeEndpoint(reader),
    ephemeral: reader.bytes(32),
    framing: FRAMINGS[reader.u8()] ?? "any",
    encrypt: (reader.u8() & FLAG_ENCRYPT) !== 0,
    proof: reader.bytes(PROOF_LENGTH),
    mac: bytes.subarray(MESSAGE_LENGTH.auth - TAG_LENGTH, MESSAGE_LENGTH.auth),
  };
}

export type WelcomeBody = Omit<Welcome, "proof">;

function welcomeBody(message: WelcomeBody): Writer {
  const { nonce, ephemeral, session, status, framing, encrypt } = message;
  return start("welcome").bytes(nonce).bytes(ephemeral).bytes(session)
    .u8(WELCOME_STATUS.indexOf(status)).u8(FRAMINGS.indexOf(framing))
    .u8(encrypt ? FLAG_ENCRYPT : 0).u8(0).u32(message.keepaliveMs).u32(message.reauthMs)
    .bytes(encodeAddress(message.clientAddress)).bytes(encodeAddress(message.hubAddress))
    .bytes(encodeEndpoint(message.hub));
}

/** What the hub's proof covers of the message. */
export function welcomeSignedPart(message: WelcomeBody): Uint8Array<ArrayBuffer> {
  return welcomeBody(message).finish();
}

export function encodeWelcome(message: Welcome): Uint8Array<ArrayBuffer> {
  return padded("welcome", welcomeBody(message).bytes(message.proof));
}

/** Undefined when it says what this version does not know. */
export function decodeWelcome(bytes: Uint8Array): Welcome | undefined {
  const reader = body(bytes);
  const [nonce, ephemeral] = [reader.bytes(NONCE_LENGTH), reader.bytes(32)];
  const session = reader.bytes(SESSION_LENGTH);
  const status = WELCOME_STATUS[reader.u8()];
  const framing = FRAMINGS[reader.u8()];
  const encrypt = (reader.u8() & FLAG_ENCRYPT) !== 0;
  const [keepaliveMs, reauthMs] = [reader.skip(1).u32(), reader.u32()];
  const [clientAddress, hubAddress] = [decodeAddress(reader), decodeAddress(reader)];
  const hub = decodeEndpoint(reader);
  const proof = reader.bytes(PROOF_LENGTH);
  if (!status || !framing || framing === "any") return undefined;
  return {
    ...{ nonce, ephemeral, session, status, framing, encrypt, keepaliveMs, reauthMs, hub, proof },
    ...(clientAddress ? { clientAddress } : {}),
    ...(hubAddress ? { hubAddress } : {}),
  };
}

/** The tag's bytes are zero: it is made over all before it. */
export function encodeKeepalive(message: Omit<Keepalive, "tag">): Uint8Array<ArrayBuffer> {
  const writer = start("keepalive").bytes(message.session).u64(message.counter)
    .u8(message.bye ? FLAG_BYE : 0);
  return padded("keepalive", writer);
}

export function decodeKeepalive(bytes: Uint8Array): Keepalive {
  const reader = body(bytes);
  return {
    session: reader.bytes(SESSION_LENGTH),
    counter: reader.u64(),
    bye: (reader.u8() & FLAG_BYE) !== 0,
    tag: bytes.subarray(MESSAGE_LENGTH.keepalive - TAG_LENGTH, MESSAGE_LENGTH.keepalive),
  };
}

/** The tag's bytes are zero, as above. */
export function encodeAlive({ session, counter, observed }: Omit<Alive, "tag">) {
  const writer = start("alive").bytes(session).u64(counter).bytes(encodeEndpoint(observed));
  return padded("alive", writer);
}

export function decodeAlive(bytes: Uint8Array): Alive {
  const reader = body(bytes);
  return {
    session: reader.bytes(SESSION_LENGTH),
    counter: reader.u64(),
    observed: decodeEndpoint(reader),
    tag: bytes.subarray(MESSAGE_LENGTH.alive - TAG_LENGTH, MESSAGE_LENGTH.alive),
  };
}

export function encodeReset({ session, counter }: Reset): Uint8Array<ArrayBuffer> {
  return start("reset").bytes(session).u64(counter).finish();
}

export function decodeReset(bytes: Uint8Array): Reset {
  const reader = body(bytes);
  return { session: reader.bytes(SESSION_LENGTH), counter: reader.u64() };
}

/** 16 bytes of address and the port, as in messages and under signatures. */
export function encodeEndpoint({ ip, port }: Endpoint): Uint8Array<ArrayBuffer> {
  return new Writer("network", ENDPOINT_LENGTH).bytes(ipBytes16(ip)).u16(port).finish();
}

function decodeEndpoint(reader: Reader): Endpoint {
  return { ip: ipFromBytes(reader.bytes(16)), port: reader.u16() };
}

function encodeAddress(cidr: Cidr | undefined): Uint8Array {
  if (!cidr) return new Uint8Array(17);
  return new Writer("network", 17).bytes(ipBytes16(cidr.ip)).u8(cidr.prefixLength).finish();
}

function decodeAddress(reader: Reader): Cidr | undefined {
  const ip = ipFromBytes(reader.bytes(16));
  const prefixLength = reader.u8();
  const isNone = prefixLength === 0 || prefixLength > (ip.includes(":") ? 128 : 32);
  return isNone || isUnspecified(ip) ? undefined : { ip, prefixLength };
}

function encodeName(name: string): Uint8Array {
  const bytes = new Uint8Array(NAME_LENGTH);
  bytes.set(new TextEncoder().encode(name));
  return bytes;
}

/** Whatever the bytes are; nobody has the empty name, which odd padding gives. */
function decodeName(reader: Reader): string {
  const bytes = reader.bytes(NAME_LENGTH);
  const end = bytes.indexOf(0) < 0 ? NAME_LENGTH : bytes.indexOf(0);
  if (bytes.subarray(end).some((byte) => byte !== 0)) return "";
  return String.fromCharCode(...bytes.subarray(0, end));
}

function start(type: MessageType): Writer {
  return new Writer("network", MESSAGE_LENGTH[type]).bytes(MAGIC).u8(VERSION).u8(TYPE[type]).u16(0);
}

function padded(type: MessageType, writer: Writer): Uint8Array<ArrayBuffer> {
  return writer.zeros(MESSAGE_LENGTH[type] - writer.length).finish();
}

function body(bytes: Uint8Array): Reader {
  return new Reader(bytes, "network").skip(HEADER_LENGTH);
}
