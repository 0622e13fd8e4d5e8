/** What nodes, relays and the coordinator say of relays. */
import { fromBase64, toBase64 } from "../../bytes.ts";
import { keyBase64, type NodeKey } from "../../keys.ts";
import type { RelayLatencies, RelayOffer, RelayPlace } from "../../relay/mod.ts";
import {
  ApiError,
  BOOLEAN,
  type Codec,
  type Json,
  listOf,
  nested,
  NODE_KEY,
  number,
  object,
  parseShape,
  required,
  shapeJson,
  STRING,
  string,
  textual,
  type Values,
} from "./json.ts";

export const MAX_RELAYS = 64;
/** Longer than any round trip that is of use. */
const MAX_LATENCY_MS = 60_000;
const MAX_ADDRESS_LENGTH = 300;

const LATENCIES: Codec<RelayLatencies> = {
  json: (latencies) => Object.fromEntries([...latencies].map(([key, ms]) => [keyBase64(key), ms])),
  parse(value, field) {
    const entries = Object.entries(object(value ?? {}, field));
    if (entries.length > MAX_RELAYS) throw new ApiError(`${field} has too many entries`);
    return new Map(entries.map(([key, ms]) => {
      if (typeof ms !== "number" || !(ms >= 0 && ms <= MAX_LATENCY_MS)) {
        throw new ApiError(`${field}: not milliseconds`);
      }
      return [NODE_KEY.parse(key, field), ms];
    }));
  },
};

const ADDRESS: Codec<string> = { json: (address) => address, parse: address };

/** "host:port", where the host may be empty. */
const HOST_PORT: Codec<string> = {
  json: (address) => address,
  parse(value, field) {
    const text = address(value, field);
    const port = Number(/^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):(\d{1,5})$/.exec(text)?.[1]);
    if (port >= 1 && port <= 65535) return text;
    throw new ApiError(`${field} is not HOST:PORT`);
  },
};

function address(value: unknown, field: string): string {
  const text = string(value, field);
  if (text.length > MAX_ADDRESS_LENGTH) throw new ApiError(`${field} is too long`);
  if (/[^!-~]/.test(text)) throw new ApiError(`${field} has characters that no address has`);
  return text;
}

const PLACE = {
  relayKey: required("relay_id", NODE_KEY),
  udp: required("udp", HOST_PORT),
  ws: required("ws", ADDRESS),
};

const RELAYS_REQUEST = { latencies: required("latencies", LATENCIES) };

export const relaysRequestJson = (latencies: RelayLatencies): Json =>
  shapeJson(RELAYS_REQUEST, { latencies });
export const parseRelaysRequest = (value: unknown): RelayLatencies =>
  parseShape(RELAYS_REQUEST, value).latencies;

const RELAYS = { relays: required("relays", listOf(nested(PLACE), MAX_RELAYS, "relay")) };
/** Grants are signed with it. */
const GRANT_KEY = { grantKey: required("grant_pubkey", NODE_KEY) };

export const relaysJson = (grantKey: NodeKey, relays: RelayPlace[]): Json =>
  shapeJson({ ...GRANT_KEY, ...RELAYS }, { grantKey, relays });
export const parseRelays = (value: unknown): RelayPlace[] => parseShape(RELAYS, value).relays;

const RELAY_REQUEST = { peer: required("peer", NODE_KEY), ...RELAYS_REQUEST };

export const relayRequestJson = (peer: NodeKey, latencies: RelayLatencies): Json =>
  shapeJson(RELAY_REQUEST, { peer, latencies });
export const parseRelayRequest = (value: unknown): Values<typeof RELAY_REQUEST> =>
  parseShape(RELAY_REQUEST, value);

const OFFER = {
  ...PLACE,
  grant: required("grant", textual<Uint8Array>(toBase64, fromBase64)),
  expiresAt: required("expires_at", STRING),
};

export const relayOfferJson = (offer: RelayOffer): Json => shapeJson(OFFER, offer);
export const parseRelayOffer = (value: unknown): RelayOffer => parseShape(OFFER, value);

/** What a relay of a role of its own tells the coordinator. */
const REGISTRATION = {
  /** "host:port"; an empty host is the one that the call comes from. */
  udp: required("udp", HOST_PORT),
  /** "host:port" of its HTTP server, in the same way. */
  http: required("http", HOST_PORT),
  /** Whether HTTPS is served there. */
  tls: required("tls", BOOLEAN),
};

export type RelayRegistration = Values<typeof REGISTRATION>;

export const relayRegistrationJson = (registration: RelayRegistration): Json =>
  shapeJson(REGISTRATION, registration);
export const parseRelayRegistration = (value: unknown): RelayRegistration =>
  parseShape(REGISTRATION, value);

const REGISTERED = {
  ...GRANT_KEY,
  leaseSeconds: required("lease_seconds", number({ min: 1, max: Number.MAX_SAFE_INTEGER })),
};

export const relayRegisteredJson = (grantKey: NodeKey, leaseSeconds: number): Json =>
  shapeJson(REGISTERED, { grantKey, leaseSeconds });
export const parseRelayRegistered = (value: unknown): Values<typeof REGISTERED> =>
  parseShape(REGISTERED, value);
