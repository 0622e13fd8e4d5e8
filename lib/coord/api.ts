/**
 * The coordinator's v1 API as types, and their JSON form both ways. Parsers take `unknown` and
 * throw {@link ApiError} with the field's name; they bound every length.
 *
 * Node keys and sealed messages are base64, disco keys arrays of 32 numbers (base64 is read too).
 */
import {
  type Cidr,
  type Endpoint,
  formatCidr,
  formatEndpoint,
  type Ip,
  parseCidr,
  parseEndpoint,
  parseIp,
} from "../addr.ts";
import { fromBase64, toBase64 } from "../bytes.ts";
import {
  type DiscoKey,
  discoKeyFromBytes,
  KEY_LENGTH,
  keyBase64,
  keyBytes,
  type NodeKey,
  nodeKeyFromBytes,
} from "../keys.ts";
import type { RelayLatencies, RelayOffer, RelayPlace } from "../relay/mod.ts";

export const MAX_NAME_LENGTH = 64;
export const MAX_ENDPOINTS = 32;
/** A call-me-maybe with as many endpoints is 656 bytes. */
export const MAX_SEALED_LENGTH = 2048;
export const MAX_BODY_LENGTH = 16 * 1024;

export const MAX_RELAYS = 64;
/** Longer than any round trip that is of use. */
const MAX_LATENCY_MS = 60_000;
const MAX_ADDRESS_LENGTH = 300;
const MAX_LISTED = 100_000;
/** Between two ports. */
const MAX_PORT_DELTA = 32_767;

/** An original node has the first two; a router's port mapping and the user tell of others. */
export const ENDPOINT_SOURCES = ["local", "stun", "portmap", "given"] as const;
export type EndpointSource = typeof ENDPOINT_SOURCES[number];

export interface AdvertisedEndpoint {
  endpoint: Endpoint;
  source: EndpointSource;
}

/**
 * How a node's NAT maps: "easy" gives an inner port one outer port, whoever is sent to; "hard"
 * another one for each remote (RFC 4787: not endpoint-independent), which peers can only guess.
 */
export interface NodeNat {
  mapping: "easy" | "hard";
  /** Of a hard one that takes ports in order: from one mapping to the next, not 0. */
  portDelta?: number;
}

interface NatJson {
  mapping: NodeNat["mapping"];
  port_delta?: number;
}

export interface PeerRecord {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
  name: string;
  tunnelIp: Ip;
  endpoints: AdvertisedEndpoint[];
  /** Absent: the node has not told, or does not know. */
  nat?: NodeNat;
  /** RFC 3339. */
  updatedAt: string;
}

export interface RegisterRequest {
  nodeKey: NodeKey;
  discoKey: DiscoKey;
  nodeName: string;
  requestedTunnelIp?: Ip;
}

export interface RegisterResponse {
  tunnelIp: Cidr;
  peersEtag: string;
  /** "host:port"; an empty host is the one that the coordinator was reached at. */
  stun: string[];
  /** How long a node stays listed without a call; absent: for ever. */
  leaseSeconds?: number;
}

export interface Envelope {
  from?: DiscoKey;
  sealed: Uint8Array;
}

/** What a relay of a role of its own tells the coordinator. */
export interface RelayRegistration {
  /** "host:port"; an empty host is the one that the call comes from. */
  udp: string;
  /** "host:port" of its HTTP server, in the same way. */
  http: string;
  /** Whether HTTPS is served there. */
  tls: boolean;
}

/** JSON that is not what the API says: 400. */
export class ApiError extends Error {
  override name = "ApiError";
}

type Json = Record<string, unknown>;

function object(value: unknown, what: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw new ApiError(`${what} is not an object`);
}

function string(value: unknown, field: string): string {
  if (typeof value === "string") return value;
  throw new ApiError(`${field} is not a string`);
}

/** A list; the original writes null for an empty one. */
function list(value: unknown, field: string, max: number): unknown[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) throw new ApiError(`${field} is not a list`);
  if (value.length > max) throw new ApiError(`${field} has more than ${max} entries`);
  return value;
}

/** Runs a parser of another room and names the field in what it throws. */
function parsed<T>(field: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(`${field}: ${error instanceof Error ? error.message : error}`);
  }
}

function nodeKey(value: unknown, field: string): NodeKey {
  const text = string(value, field);
  return parsed(field, () => nodeKeyFromBytes(fromBase64(text)));
}

function discoKey(value: unknown, field: string): DiscoKey {
  return parsed(field, () => {
    if (typeof value === "string") return discoKeyFromBytes(fromBase64(value));
    const numbers = list(value, field, KEY_LENGTH);
    if (!numbers.every((n) => Number.isInteger(n) && (n as number) >= 0 && (n as number) < 256)) {
      throw new RangeError("not bytes");
    }
    return discoKeyFromBytes(Uint8Array.from(numbers as number[]));
  });
}

function discoKeyJson(key: DiscoKey): number[] {
  return [...keyBytes(key)];
}

function sealed(value: unknown): Uint8Array {
  const text = string(value, "sealed");
  if (text.length > MAX_SEALED_LENGTH * 4 / 3 + 4) throw new ApiError("sealed is too long");
  return parsed("sealed", () => fromBase64(text));
}

function nodeName(value: unknown): string {
  const name = string(value ?? "", "node_name");
  if ([...name].length > MAX_NAME_LENGTH) {
    throw new ApiError(`node_name is longer than ${MAX_NAME_LENGTH} characters`);
  }
  if (/\p{C}/u.test(name)) throw new ApiError("node_name has control characters");
  return name;
}

function endpoints(value: unknown): AdvertisedEndpoint[] {
  return list(value, "endpoints", MAX_ENDPOINTS).map((item) => {
    const { addr, source } = object(item, "endpoint");
    return {
      endpoint: parsed("addr", () => parseEndpoint(string(addr, "addr"))),
      // Unknown words come from newer nodes; what matters is the address.
      source: ENDPOINT_SOURCES.find((word) => word === source) ?? "local",
    };
  });
}

function endpointsJson(list: readonly AdvertisedEndpoint[]) {
  return list.map(({ endpoint, source }) => ({ addr: formatEndpoint(endpoint), source }));
}

// --- one pair for each body

export function registerRequestJson(r: RegisterRequest): Json {
  return {
    node_pubkey: keyBase64(r.nodeKey),
    disco_pubkey: discoKeyJson(r.discoKey),
    node_name: r.nodeName,
    ...(r.requestedTunnelIp ? { requested_tunnel_ip: r.requestedTunnelIp } : {}),
  };
}

export function parseRegisterRequest(value: unknown): RegisterRequest {
  const body = object(value, "body");
  const wanted = body.requested_tunnel_ip;
  return {
    nodeKey: nodeKey(body.node_pubkey, "node_pubkey"),
    discoKey: discoKey(body.disco_pubkey, "disco_pubkey"),
    nodeName: nodeName(body.node_name),
    ...(typeof wanted === "string" && wanted !== ""
      ? { requestedTunnelIp: parsed("requested_tunnel_ip", () => parseIp(wanted.split("/")[0]!)) }
      : {}),
  };
}

export function registerResponseJson(r: RegisterResponse): Json {
  return {
    tunnel_ip: formatCidr(r.tunnelIp),
    peers_etag: r.peersEtag,
    stun: r.stun,
    ...(r.leaseSeconds === undefined ? {} : { lease_seconds: r.leaseSeconds }),
  };
}

export function parseRegisterResponse(value: unknown): RegisterResponse {
  const body = object(value, "body");
  const lease = body.lease_seconds;
  return {
    tunnelIp: parsed("tunnel_ip", () => parseCidr(string(body.tunnel_ip, "tunnel_ip"))),
    peersEtag: string(body.peers_etag, "peers_etag"),
    stun: stunServers(body),
    ...(typeof lease === "number" ? { leaseSeconds: lease } : {}),
  };
}

export function stunJson(stun: readonly string[]): Json {
  return { stun: [...stun] };
}

export function parseStun(value: unknown): string[] {
  return stunServers(object(value, "body"));
}

function stunServers(body: Json): string[] {
  return list(body.stun, "stun", 16).map((item) => string(item, "stun"));
}

/** As nodes and the reports of daemons tell it. */
export function natJson(nat: NodeNat | undefined): { nat?: NatJson } {
  if (!nat) return {};
  const { mapping, portDelta } = nat;
  return { nat: { mapping, ...(portDelta === undefined ? {} : { port_delta: portDelta }) } };
}

/** Words that are not known here come from newer nodes: as good as nothing. */
function nat(body: Json): { nat?: NodeNat } {
  if (body.nat === undefined || body.nat === null) return {};
  const { mapping, port_delta: portDelta } = object(body.nat, "nat");
  if (mapping === "easy") return { nat: { mapping } };
  if (mapping !== "hard") return {};
  const isDelta = Number.isInteger(portDelta) && portDelta !== 0 &&
    Math.abs(portDelta as number) <= MAX_PORT_DELTA;
  return { nat: { mapping, ...(isDelta ? { portDelta: portDelta as number } : {}) } };
}

export function endpointsRequestJson(
  list: readonly AdvertisedEndpoint[],
  nat?: NodeNat,
): Json {
  return { endpoints: endpointsJson(list), ...natJson(nat) };
}

export function parseNat(value: unknown): NodeNat | undefined {
  return nat(object(value, "body")).nat;
}

export function parseEndpointsRequest(value: unknown): AdvertisedEndpoint[] {
  return endpoints(object(value, "body").endpoints);
}

/** The list of peers, or what has changed in it since an earlier one. */
export interface PeerList {
  etag: string;
  peers: PeerRecord[];
  /** Absent: these are all peers. */
  changes?: { since: string; gone: NodeKey[] };
}

export function peersJson({ etag, peers, changes }: PeerList): Json {
  return {
    etag,
    ...(changes ? { since: changes.since, gone: changes.gone.map(keyBase64) } : {}),
    peers: peers.map((peer) => ({
      node_pubkey: keyBase64(peer.nodeKey),
      disco_pubkey: discoKeyJson(peer.discoKey),
      node_name: peer.name,
      tunnel_ip: peer.tunnelIp,
      endpoints: endpointsJson(peer.endpoints),
      ...natJson(peer.nat),
      updated_at: peer.updatedAt,
    })),
  };
}

/** A peer that does not parse is left out: one bad record must not cost all the others. */
export function parsePeers(value: unknown): PeerList {
  const body = object(value, "body");
  const peers = list(body.peers, "peers", MAX_LISTED).flatMap((item) => {
    try {
      return [parsePeer(object(item, "peer"))];
    } catch (error) {
      if (error instanceof ApiError) return [];
      throw error;
    }
  });
  const etag = string(body.etag, "etag");
  if (body.since === undefined) return { etag, peers };
  const gone = list(body.gone, "gone", MAX_LISTED).map((item) => nodeKey(item, "gone"));
  return { etag, peers, changes: { since: string(body.since, "since"), gone } };
}

function parsePeer(peer: Json): PeerRecord {
  return {
    nodeKey: nodeKey(peer.node_pubkey, "node_pubkey"),
    discoKey: discoKey(peer.disco_pubkey, "disco_pubkey"),
    name: nodeName(peer.node_name),
    tunnelIp: parsed("tunnel_ip", () => parseIp(string(peer.tunnel_ip, "tunnel_ip"))),
    endpoints: endpoints(peer.endpoints),
    ...nat(peer),
    updatedAt: string(peer.updated_at ?? "", "updated_at"),
  };
}

export function signalJson(to: DiscoKey, message: Uint8Array): Json {
  return { to: discoKeyJson(to), sealed: toBase64(message) };
}

export function parseSignal(value: unknown): { to: DiscoKey; sealed: Uint8Array } {
  const body = object(value, "body");
  return { to: discoKey(body.to, "to"), sealed: sealed(body.sealed) };
}

export function envelopesJson(envelopes: readonly (Envelope & { enqueued: string })[]): Json {
  return {
    envelopes: envelopes.map(({ from, sealed, enqueued }) => ({
      from: from ? discoKeyJson(from) : Array(KEY_LENGTH).fill(0),
      sealed: toBase64(sealed),
      enqueue: enqueued,
    })),
  };
}

/** The original's `from` is all zero, which is no key. */
export function parseEnvelopes(value: unknown): Envelope[] {
  return list(object(value, "body").envelopes, "envelopes", 1024).flatMap((item) => {
    const envelope = object(item, "envelope");
    try {
      const message = { sealed: sealed(envelope.sealed) };
      const { from } = envelope;
      const isNoKey = Array.isArray(from) ? from.every((n) => n === 0) : !from;
      return [isNoKey ? message : { ...message, from: discoKey(from, "from") }];
    } catch (error) {
      if (error instanceof ApiError) return [];
      throw error;
    }
  });
}

// --- relays

function latencies(value: unknown): Map<NodeKey, number> {
  const entries = Object.entries(object(value ?? {}, "latencies"));
  if (entries.length > MAX_RELAYS) throw new ApiError("latencies has too many entries");
  return new Map(entries.map(([key, ms]) => {
    if (typeof ms !== "number" || !(ms >= 0 && ms <= MAX_LATENCY_MS)) {
      throw new ApiError("latencies: not milliseconds");
    }
    return [nodeKey(key, "latencies"), ms];
  }));
}

function latenciesJson(latencies: RelayLatencies): Json {
  return Object.fromEntries([...latencies].map(([key, ms]) => [keyBase64(key), ms]));
}

function address(value: unknown, field: string): string {
  const text = string(value, field);
  if (text.length > MAX_ADDRESS_LENGTH) throw new ApiError(`${field} is too long`);
  if (/[^!-~]/.test(text)) throw new ApiError(`${field} has characters that no address has`);
  return text;
}

/** "host:port", where the host may be empty. */
function hostPort(value: unknown, field: string): string {
  const text = address(value, field);
  const port = Number(/^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):(\d{1,5})$/.exec(text)?.[1]);
  if (port >= 1 && port <= 65535) return text;
  throw new ApiError(`${field} is not HOST:PORT`);
}

export function relaysRequestJson(measured: RelayLatencies): Json {
  return { latencies: latenciesJson(measured) };
}

export function parseRelaysRequest(value: unknown): Map<NodeKey, number> {
  return latencies(object(value, "body").latencies);
}

export function relaysJson(grantKey: NodeKey, relays: readonly RelayPlace[]): Json {
  return { grant_pubkey: keyBase64(grantKey), relays: relays.map(placeJson) };
}

export function parseRelays(value: unknown): RelayPlace[] {
  return list(object(value, "body").relays, "relays", MAX_RELAYS)
    .map((item) => parsePlace(object(item, "relay")));
}

function placeJson({ relayKey, udp, ws }: RelayPlace): Json {
  return { relay_id: keyBase64(relayKey), udp, ws };
}

function parsePlace({ relay_id, udp, ws }: Json): RelayPlace {
  return {
    relayKey: nodeKey(relay_id, "relay_id"),
    udp: hostPort(udp, "udp"),
    ws: address(ws, "ws"),
  };
}

export function relayRequestJson(peer: NodeKey, measured: RelayLatencies): Json {
  return { peer: keyBase64(peer), latencies: latenciesJson(measured) };
}

export function parseRelayRequest(
  value: unknown,
): { peer: NodeKey; latencies: Map<NodeKey, number> } {
  const body = object(value, "body");
  return { peer: nodeKey(body.peer, "peer"), latencies: latencies(body.latencies) };
}

export function relayOfferJson(offer: RelayOffer): Json {
  return { ...placeJson(offer), grant: toBase64(offer.grant), expires_at: offer.expiresAt };
}

export function parseRelayOffer(value: unknown): RelayOffer {
  const body = object(value, "body");
  const grant = string(body.grant, "grant");
  return {
    ...parsePlace(body),
    grant: parsed("grant", () => fromBase64(grant)),
    expiresAt: string(body.expires_at, "expires_at"),
  };
}

export function relayRegistrationJson({ udp, http, tls }: RelayRegistration): Json {
  return { udp, http, tls };
}

export function parseRelayRegistration(value: unknown): RelayRegistration {
  const { udp, http, tls } = object(value, "body");
  return { udp: hostPort(udp, "udp"), http: hostPort(http, "http"), tls: tls === true };
}

export function relayRegisteredJson(grantKey: NodeKey, leaseSeconds: number): Json {
  return { grant_pubkey: keyBase64(grantKey), lease_seconds: leaseSeconds };
}

export function parseRelayRegistered(
  value: unknown,
): { grantKey: NodeKey; leaseSeconds: number } {
  const body = object(value, "body");
  const lease = body.lease_seconds;
  if (typeof lease !== "number" || !(lease >= 1)) throw new ApiError("lease_seconds is no time");
  return { grantKey: nodeKey(body.grant_pubkey, "grant_pubkey"), leaseSeconds: lease };
}
