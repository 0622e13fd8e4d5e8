/**
 * What nodes and the coordinator say of nodes. Each attribute of a node is written once, in a
 * {@link Shape}: its JSON both ways, its type and its place in the store follow from that.
 */
import { type Endpoint, formatEndpoint, type Ip, parseEndpoint, parseIp } from "../../addr.ts";
import { fromBase64, toBase64 } from "../../bytes.ts";
import { type DiscoKey, KEY_LENGTH, keyBase64, type NodeKey } from "../../keys.ts";
import { type Access, formatAccess, parseAccess, union } from "../../policy/access.ts";
import {
  ApiError,
  BOOLEAN,
  CIDR,
  type Codec,
  DISCO_KEY,
  DISCO_KEY_TEXT,
  IP,
  type Json,
  list,
  listOf,
  MARK,
  MS,
  NODE_KEY,
  object,
  optional,
  parsed,
  parsedOrNone,
  parseShape,
  required,
  shapeJson,
  STRING,
  string,
  text,
  TIME,
  type Values,
} from "./json.ts";
import { SIGNED } from "./signed.ts";
import { TAGS, TOKEN_SECRET_LENGTH } from "./token.ts";

export const MAX_NAME_LENGTH = 64;
const DISCO_PROOF_LENGTH = 32;
export const MAX_ENDPOINTS = 32;
/** A call-me-maybe with as many endpoints is 656 bytes. */
export const MAX_SEALED_LENGTH = 2048;
export const MAX_BODY_LENGTH = 16 * 1024;
const MAX_LISTED = 100_000;
const MAX_STUN_SERVERS = 16;
const MAX_ACCESS_WORDS = 16;
const MAX_ENVELOPES = 1024;
/** Between two ports. */
const MAX_PORT_DELTA = 32_767;

// --- endpoints and NAT

/** An original node has the first two; a router's port mapping and the user tell of others. */
export const ENDPOINT_SOURCES = ["local", "stun", "portmap", "given"] as const;
export type EndpointSource = typeof ENDPOINT_SOURCES[number];

export interface AdvertisedEndpoint {
  endpoint: Endpoint;
  source: EndpointSource;
}

const ENDPOINT: Codec<AdvertisedEndpoint> = {
  json: ({ endpoint, source }) => ({ addr: formatEndpoint(endpoint), source }),
  parse(value, what) {
    const { addr, source } = object(value, what);
    return {
      endpoint: parsed("addr", () => parseEndpoint(string(addr, "addr"))),
      // Unknown words come from newer nodes; what matters is the address.
      source: ENDPOINT_SOURCES.find((word) => word === source) ?? "local",
    };
  },
};

/**
 * How a node's NAT maps: "easy" gives an inner port one outer port, whoever is sent to; "hard"
 * another one for each remote (RFC 4787: not endpoint-independent), which peers can only guess.
 */
export interface NodeNat {
  mapping: "easy" | "hard";
  /** Of a hard one that takes ports in order: from one mapping to the next, not 0. */
  portDelta?: number;
}

const NAT: Codec<NodeNat | undefined> = {
  json: (nat) => nat && natFields(nat),
  parse(value, field) {
    const { mapping, port_delta: portDelta } = object(value, field);
    if (mapping === "easy") return { mapping };
    if (mapping !== "hard") return undefined;
    const isDelta = Number.isInteger(portDelta) && portDelta !== 0 &&
      Math.abs(portDelta as number) <= MAX_PORT_DELTA;
    return { mapping, ...(isDelta ? { portDelta: portDelta as number } : {}) };
  },
};

function natFields({ mapping, portDelta }: NodeNat) {
  return { mapping, ...(portDelta === undefined ? {} : { port_delta: portDelta }) };
}

/** As nodes and the reports of daemons tell it. */
export function natJson(nat: NodeNat | undefined): { nat?: ReturnType<typeof natFields> } {
  return nat ? { nat: natFields(nat) } : {};
}

// --- a node

function bytesOf(length: number): Codec<Uint8Array> {
  return {
    json: toBase64,
    parse(value, field) {
      const given = string(value, field);
      const bytes = parsed(field, () => fromBase64(given));
      if (bytes.length === length) return bytes;
      throw new ApiError(`${field} is ${bytes.length} bytes: want ${length}`);
    },
  };
}

/** Who it is: what it registers with. */
const IDENTITY = {
  nodeKey: required("node_pubkey", NODE_KEY),
  discoKey: required("disco_pubkey", DISCO_KEY),
  name: required("node_name", text(MAX_NAME_LENGTH)),
};

/** Where and how it is reached: what it tells whenever that changes. */
const REACH = {
  endpoints: required("endpoints", listOf(ENDPOINT, MAX_ENDPOINTS, "endpoint")),
  /** Absent: the node has not told, or does not know. */
  nat: optional("nat", NAT),
};

/** What a node says of itself in its own words, which others believe. */
export const SAID = {
  discoKey: required("disco_pubkey", DISCO_KEY_TEXT),
  /** As the node has it; absent before it is told one. */
  tunnelIp: optional("tunnel_ip", IP),
  ...REACH,
};

/** {@link SAID}, signed. */
const STATED = {
  /** Absent from nodes of older versions. */
  statement: optional("statement", SIGNED),
};
const STATED_REACH = { ...REACH, ...STATED };

const REGISTER_REQUEST = {
  ...IDENTITY,
  ...STATED,
  /** That the disco key is its own. */
  discoProof: optional("disco_proof", bytesOf(DISCO_PROOF_LENGTH)),
  /** It wants the list of peers with the answer. */
  wantsList: optional("list", MARK),
  /** The secret of a token, from a node that is to join. */
  token: optional("token", bytesOf(TOKEN_SECRET_LENGTH)),
  requestedTunnelIp: optional<Ip>("requested_tunnel_ip", {
    json: (ip) => ip,
    parse: (value, field) =>
      typeof value === "string" && value !== ""
        ? parsed(field, () => parseIp(value.split("/")[0]!))
        : undefined,
  }),
};

/** What others are told of a node. */
const PEER = {
  ...IDENTITY,
  tunnelIp: required("tunnel_ip", IP),
  ...STATED_REACH,
  updatedMs: required("updated_at", TIME),
  /** When it last called; a node that holds a call does so each 25 s. */
  seenMs: optional("last_seen", TIME),
  /** It speaks the original's protocol, which has no relays. */
  isV1: optional("v1", MARK),
};

/** "tcp:22,80", "icmp" and so on; words of newer coordinators allow nothing. */
const ACCESS: Codec<Access> = {
  json: formatAccess,
  parse: (value, field) =>
    union(
      ...list(value, field, MAX_ACCESS_WORDS).flatMap((word) => {
        const given = string(word, field);
        return parsedOrNone(() => parsed(field, () => parseAccess(given))) ?? [];
      }),
    ),
};

/** And by a policy, of what is between the two. */
const TOLD = {
  ...PEER,
  /** What it may open here; absent: all. */
  inbound: optional("inbound", ACCESS),
  /** It answers none of this node's pings. */
  isSilent: optional("silent", MARK),
};

/** What the coordinator keeps of a node. */
const RECORD = {
  ...PEER,
  updatedMs: required("updated_ms", MS),
  seenMs: optional("seen_ms", MS),
  /** Renewed in memory only; what is stored is when it was last written. */
  leaseEndsMs: required("lease_ends_ms", MS),
  /** Whether it is in the list of peers: the lease lives, or its end was not noticed yet. */
  listed: required("listed", BOOLEAN),
  /** When it first registered, from which network, and whether it was there an hour later. */
  joinedMs: optional("joined_ms", MS),
  source: optional("source", STRING),
  isSettled: optional("settled", MARK),
  /** It has proven that the disco key is its own. */
  isProven: optional("disco_proven", MARK),
  // What the operator has said.
  /** In place of the name that it gives itself. */
  givenName: optional("given_name", text(MAX_NAME_LENGTH)),
  tags: optional("tags", TAGS),
  /** The token that it joined by. */
  tokenId: optional("token", STRING),
  /** It has to be approved before it is a member. */
  isWaiting: optional("waiting", MARK),
  /** It is forgotten when it goes. */
  isEphemeral: optional("ephemeral", MARK),
  /** When it stops being a member. */
  expiresMs: optional("expires_ms", MS),
};

export type NodeReach = Values<typeof STATED_REACH>;
export type RegisterRequest = Values<typeof REGISTER_REQUEST>;
export type PeerRecord = Values<typeof TOLD>;
/** Times are whole ms since 1970. */
export type NodeRecord = Values<typeof RECORD>;

export function toPeer(record: NodeRecord): PeerRecord {
  const shown = { ...record, name: record.givenName ?? record.name };
  const names = Object.keys(PEER) as (keyof typeof PEER)[];
  return Object.fromEntries(
    names.filter((name) => shown[name] !== undefined).map((name) => [name, shown[name]]),
  ) as Values<typeof PEER>;
}

/** The record, with what a policy says in the other one. */
export function asTold(record: PeerRecord, { inbound, isSilent }: PeerRecord): PeerRecord {
  const { inbound: _inbound, isSilent: _isSilent, ...rest } = record;
  return { ...rest, ...(inbound ? { inbound } : {}), ...(isSilent ? { isSilent } : {}) };
}

/** What the node itself says in place of what is said of it; its address is given to it. */
export function asStated(record: PeerRecord, said: Values<typeof SAID>): PeerRecord {
  const { tunnelIp: _, ...own } = SAID;
  const isOwn = ([name]: [string, unknown]) => Object.hasOwn(own, name);
  const others = Object.entries(record).filter((entry) => !isOwn(entry));
  return Object.fromEntries([...others, ...Object.entries(said).filter(isOwn)]) as PeerRecord;
}

export function isSameReach(a: NodeReach, b: NodeReach): boolean {
  return JSON.stringify(reachJson(a)) === JSON.stringify(reachJson(b));
}

/** The record, with all that the node told of its reach replaced. */
export function withReach(record: NodeRecord, reach: NodeReach): NodeRecord {
  const others = Object.entries(record).filter(([name]) => !Object.hasOwn(STATED_REACH, name));
  return { ...Object.fromEntries(others), ...reach } as NodeRecord;
}

export const reachJson = (reach: NodeReach): Json => shapeJson(STATED_REACH, reach);
export const parseReach = (value: unknown): NodeReach => parseShape(STATED_REACH, value);

export const recordJson = (record: NodeRecord): Json => shapeJson(RECORD, record);
export const parseRecord = (value: unknown): NodeRecord => parseShape(RECORD, value);

// --- register

export const registerRequestJson = (request: RegisterRequest): Json =>
  shapeJson(REGISTER_REQUEST, request);
export const parseRegisterRequest = (value: unknown): RegisterRequest =>
  parseShape(REGISTER_REQUEST, value);

const STUN = { stun: required("stun", listOf(STRING, MAX_STUN_SERVERS, "stun")) };

const REGISTER_RESPONSE = {
  tunnelIp: required("tunnel_ip", CIDR),
  peersEtag: required("peers_etag", STRING),
  /** "host:port"; an empty host is the one that the coordinator was reached at. */
  ...STUN,
  /** How long a node stays listed without a call; absent: for ever. */
  leaseSeconds: optional<number>("lease_seconds", {
    json: (seconds) => seconds,
    parse: (value) => typeof value === "number" ? value : undefined,
  }),
  /** For a node that has asked for it; older coordinators do not know of that. */
  list: optional<PeerList>("list", { json: peersJson, parse: parsePeers }),
};

export type RegisterResponse = Values<typeof REGISTER_RESPONSE>;

export const registerResponseJson = (response: RegisterResponse): Json =>
  shapeJson(REGISTER_RESPONSE, response);
export const parseRegisterResponse = (value: unknown): RegisterResponse =>
  parseShape(REGISTER_RESPONSE, value);

export const stunJson = (stun: string[]): Json => shapeJson(STUN, { stun });
export const parseStun = (value: unknown): string[] => parseShape(STUN, value).stun;

// --- the list of peers

/** The list of peers, or what has changed in it since an earlier one. */
export interface PeerList {
  etag: string;
  peers: PeerRecord[];
  /** Absent: these are all peers. */
  changes?: { since: string; gone: NodeKey[] };
  /** Of a whole list: nodes that are members still, but not there. */
  away?: NodeKey[];
  /** By a policy: tunnels to others than `peers` and `away`, who were taken from this node, may not work on. */
  isByPolicy?: true;
}

export function peersJson({ etag, peers, changes, away, isByPolicy }: PeerList): Json {
  return {
    etag,
    ...(changes ? { since: changes.since, gone: changes.gone.map(keyBase64) } : {}),
    ...(away ? { [isByPolicy ? "away" : "absent"]: away.map(keyBase64) } : {}),
    peers: peers.map((peer) => shapeJson(TOLD, peer)),
  };
}

/** A peer that does not parse is left out: one bad record must not cost all the others. */
export function parsePeers(value: unknown): PeerList {
  const body = object(value, "body");
  const peers = list(body.peers, "peers", MAX_LISTED)
    .flatMap((item) => parsedOrNone(() => parseShape(TOLD, item, "peer")) ?? []);
  const etag = string(body.etag, "etag");
  const keys = (field: "gone" | "away" | "absent") =>
    listOf(NODE_KEY, MAX_LISTED, field).parse(body[field], field);
  if (body.since === undefined) {
    if (body.away !== undefined) return { etag, peers, away: keys("away"), isByPolicy: true };
    return { etag, peers, ...(body.absent === undefined ? {} : { away: keys("absent") }) };
  }
  const gone = keys("gone");
  return { etag, peers, changes: { since: string(body.since, "since"), gone } };
}

// --- sealed messages

export interface Envelope {
  from?: DiscoKey;
  sealed: Uint8Array;
}

const SEALED: Codec<Uint8Array> = {
  json: toBase64,
  parse(value, field) {
    const given = string(value, field);
    if (given.length > MAX_SEALED_LENGTH * 4 / 3 + 4) throw new ApiError(`${field} is too long`);
    return parsed(field, () => fromBase64(given));
  },
};

const SIGNAL = { to: required("to", DISCO_KEY), sealed: required("sealed", SEALED) };

export const signalJson = (to: DiscoKey, sealed: Uint8Array): Json =>
  shapeJson(SIGNAL, { to, sealed });
export const parseSignal = (value: unknown): Values<typeof SIGNAL> => parseShape(SIGNAL, value);

/** The original's `from` is all zero, which is no key. */
const SENDER: Codec<DiscoKey | undefined> = {
  json: (key) => key ? DISCO_KEY.json(key) : Array(KEY_LENGTH).fill(0),
  parse(value, field) {
    const isNoKey = Array.isArray(value) ? value.every((n) => n === 0) : !value;
    return isNoKey ? undefined : DISCO_KEY.parse(value, field);
  },
};

const ENVELOPE = {
  from: optional("from", SENDER),
  sealed: required("sealed", SEALED),
};

export function envelopesJson(envelopes: readonly (Envelope & { enqueued: string })[]): Json {
  return {
    envelopes: envelopes.map(({ enqueued, ...envelope }) => ({
      from: SENDER.json(undefined),
      ...shapeJson(ENVELOPE, envelope),
      enqueue: enqueued,
    })),
  };
}

export function parseEnvelopes(value: unknown): Envelope[] {
  return list(object(value, "body").envelopes, "envelopes", MAX_ENVELOPES)
    .flatMap((item) => parsedOrNone(() => parseShape(ENVELOPE, item, "envelope")) ?? []);
}
