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

// --- fields

interface Field<T> {
  write(writer: Writer, value: T): void;
  read(reader: Reader): T;
}
type Fields = Record<string, Field<unknown>>;
type Values<F extends Fields> = {
  -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

const of = (length: number): Field<Uint8Array> => ({
  write: (writer, bytes) => void writer.bytes(bytes),
  read: (reader) => reader.bytes(length),
});

const U32: Field<number> = {
  write: (writer, value) => void writer.u32(value),
  read: (reader) => reader.u32(),
};

const U64: Field<bigint> = {
  write: (writer, value) => void writer.u64(value),
  read: (reader) => reader.u64(),
};

/** The lowest bit of a byte. */
const FLAG: Field<boolean> = {
  write: (writer, isSet) => void writer.u8(isSet ? 1 : 0),
  read: (reader) => (reader.u8() & 1) !== 0,
};

const ZERO: Field<undefined> = {
  write: (writer) => void writer.u8(0),
  read: (reader) => void reader.skip(1),
};

/** By its number; what this version does not know is read as `other`. */
function oneOf<T, O extends T | undefined>(words: readonly T[], other: O): Field<T | O> {
  return {
    write: (writer, word) => void writer.u8(words.indexOf(word as T)),
    read: (reader) => words[reader.u8()] ?? other,
  };
}

/** Whatever the bytes are; nobody has the empty name, which odd padding gives. */
const NAME: Field<string> = {
  write(writer, name) {
    const bytes = new TextEncoder().encode(name);
    writer.bytes(bytes).zeros(NAME_LENGTH - bytes.length);
  },
  read(reader) {
    const bytes = reader.bytes(NAME_LENGTH);
    const end = bytes.indexOf(0) < 0 ? NAME_LENGTH : bytes.indexOf(0);
    if (bytes.subarray(end).some((byte) => byte !== 0)) return "";
    return String.fromCharCode(...bytes.subarray(0, end));
  },
};

const ENDPOINT: Field<Endpoint> = {
  write: (writer, endpoint) => void writer.bytes(encodeEndpoint(endpoint)),
  read: (reader) => ({ ip: ipFromBytes(reader.bytes(16)), port: reader.u16() }),
};

const ADDRESS: Field<Cidr | undefined> = {
  write(writer, cidr) {
    if (!cidr) writer.zeros(17);
    else writer.bytes(ipBytes16(cidr.ip)).u8(cidr.prefixLength);
  },
  read(reader) {
    const ip = ipFromBytes(reader.bytes(16));
    const prefixLength = reader.u8();
    const isNone = prefixLength === 0 || prefixLength > (ip.includes(":") ? 128 : 32);
    return isNone || isUnspecified(ip) ? undefined : { ip, prefixLength };
  },
};

// --- messages

const HELLO = { nonce: of(NONCE_LENGTH), name: NAME };

const CHALLENGE = {
  /** Of the hello. */
  nonce: of(NONCE_LENGTH),
  /** The client as the hub sees it. */
  observed: ENDPOINT,
  /** The hub's time in microseconds since 1970; rises with every challenge. */
  stamp: U64,
  /** Proves to the hub that it sent this challenge to that endpoint. */
  cookie: of(COOKIE_LENGTH),
};

const AUTH_BODY = {
  name: NAME,
  nonce: of(NONCE_LENGTH),
  stamp: U64,
  cookie: of(COOKIE_LENGTH),
  /** The hub as the client sees it. */
  hub: ENDPOINT,
  /** X25519. */
  ephemeral: of(32),
  framing: oneOf(FRAMINGS, "any"),
  /** The client insists on encryption; the hub may too. */
  encrypt: FLAG,
};
const AUTH = { ...AUTH_BODY, proof: of(PROOF_LENGTH) };

const WELCOME_BODY = {
  nonce: of(NONCE_LENGTH),
  ephemeral: of(32),
  session: of(SESSION_LENGTH),
  status: oneOf(WELCOME_STATUS, undefined),
  framing: oneOf(FRAMINGS, undefined),
  encrypt: FLAG,
  zero: ZERO,
  keepaliveMs: U32,
  /** After which the client authenticates again. */
  reauthMs: U32,
  clientAddress: ADDRESS,
  hubAddress: ADDRESS,
  /** The hub as it sees itself; the unspecified address when it listens on all. */
  hub: ENDPOINT,
};
const WELCOME = { ...WELCOME_BODY, proof: of(PROOF_LENGTH) };

/** `bye`: the client stops. */
const KEEPALIVE = { session: of(SESSION_LENGTH), counter: U64, bye: FLAG };
const ALIVE = { session: of(SESSION_LENGTH), counter: U64, observed: ENDPOINT };
const RESET = { session: of(SESSION_LENGTH), counter: U64 };

type Tagged<F extends Fields> = Values<F> & { tag: Uint8Array };
export type Hello = Values<typeof HELLO>;
export type Challenge = Values<typeof CHALLENGE>;
/** All of an auth message but proof and MAC, which are made over it. */
export type AuthBody = Values<typeof AUTH_BODY>;
export type Auth = Values<typeof AUTH> & { mac: Uint8Array };
export type WelcomeBody =
  & Omit<
    Values<typeof WELCOME_BODY>,
    "status" | "framing" | "zero" | "clientAddress" | "hubAddress"
  >
  & { status: WelcomeStatus; framing: Framing; clientAddress?: Cidr; hubAddress?: Cidr };
export type Welcome = WelcomeBody & { proof: Uint8Array };

/** The type of a message of this version, by header and length; undefined for anything else. */
export function messageType(bytes: Uint8Array): MessageType | undefined {
  if (bytes.length < HEADER_LENGTH || !startsWithBytes(bytes, MAGIC)) return undefined;
  if (bytes[4] !== VERSION) return undefined;
  const type = (Object.keys(TYPE) as MessageType[]).find((name) => TYPE[name] === bytes[5]);
  return type && bytes.length >= MESSAGE_LENGTH[type] ? type : undefined;
}

function write(
  type: MessageType,
  fields: Fields,
  values: Readonly<Record<string, unknown>>,
): Writer {
  const writer = new Writer("network", MESSAGE_LENGTH[type])
    .bytes(MAGIC).u8(VERSION).u8(TYPE[type]).u16(0);
  for (const [name, field] of Object.entries(fields)) field.write(writer, values[name]);
  return writer;
}

/** With zeros to its end. */
function encode(type: MessageType, fields: Fields, values: Readonly<Record<string, unknown>>) {
  const writer = write(type, fields, values);
  return writer.zeros(MESSAGE_LENGTH[type] - writer.length).finish();
}

function decode<F extends Fields>(fields: F, bytes: Uint8Array): Values<F> {
  const reader = new Reader(bytes, "network").skip(HEADER_LENGTH);
  const entries = Object.entries(fields).map(([name, field]) => [name, field.read(reader)]);
  return Object.fromEntries(entries);
}

/** Its last bytes, made over all before them. */
function tagOf(type: MessageType, bytes: Uint8Array): Uint8Array {
  return bytes.subarray(MESSAGE_LENGTH[type] - TAG_LENGTH, MESSAGE_LENGTH[type]);
}

export const encodeHello = (message: Hello) => encode("hello", HELLO, message);
export const decodeHello = (bytes: Uint8Array): Hello => decode(HELLO, bytes);

export const encodeChallenge = (message: Challenge) => encode("challenge", CHALLENGE, message);
export const decodeChallenge = (bytes: Uint8Array): Challenge => decode(CHALLENGE, bytes);

/** What the client's proof covers of the message. */
export const authSignedPart = (message: AuthBody) => write("auth", AUTH_BODY, message).finish();

/** The message with zeros for its MAC: what the MAC covers is all before it. */
export function encodeAuth(message: Omit<Auth, "mac"> & { mac?: Uint8Array }) {
  const bytes = encode("auth", AUTH, message);
  if (message.mac) bytes.set(message.mac, bytes.length - TAG_LENGTH);
  return bytes;
}

export function decodeAuth(bytes: Uint8Array): Auth {
  return { ...decode(AUTH, bytes), mac: tagOf("auth", bytes) };
}

/** What the hub's proof covers of the message. */
export const welcomeSignedPart = (message: WelcomeBody) =>
  write("welcome", WELCOME_BODY, message).finish();

export const encodeWelcome = (message: Welcome) => encode("welcome", WELCOME, message);

/** Undefined when it says what this version does not know. */
export function decodeWelcome(bytes: Uint8Array): Welcome | undefined {
  const { zero: _, clientAddress, hubAddress, status, framing, ...rest } = decode(WELCOME, bytes);
  if (!status || !framing || framing === "any") return undefined;
  return {
    ...{ ...rest, status, framing },
    ...(clientAddress ? { clientAddress } : {}),
    ...(hubAddress ? { hubAddress } : {}),
  };
}

/** The tag's bytes are zero: it is made over all before it. */
export const encodeKeepalive = (message: Values<typeof KEEPALIVE>) =>
  encode("keepalive", KEEPALIVE, message);

export function decodeKeepalive(bytes: Uint8Array): Tagged<typeof KEEPALIVE> {
  return { ...decode(KEEPALIVE, bytes), tag: tagOf("keepalive", bytes) };
}

/** The tag's bytes are zero, as above. */
export const encodeAlive = (message: Values<typeof ALIVE>) => encode("alive", ALIVE, message);

export function decodeAlive(bytes: Uint8Array): Tagged<typeof ALIVE> {
  return { ...decode(ALIVE, bytes), tag: tagOf("alive", bytes) };
}

export const encodeReset = (message: Values<typeof RESET>) => encode("reset", RESET, message);
export const decodeReset = (bytes: Uint8Array) => decode(RESET, bytes);

/** 16 bytes of address and the port, as in messages and under signatures. */
export function encodeEndpoint({ ip, port }: Endpoint): Uint8Array<ArrayBuffer> {
  return new Writer("network", ENDPOINT_LENGTH).bytes(ipBytes16(ip)).u16(port).finish();
}
