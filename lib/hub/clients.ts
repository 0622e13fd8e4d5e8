/**
 * The directory of authorised clients: one file each, named by the client's identifier, with a
 * `key value` line for what is special about it.
 *
 *     public-key BASE64      Ed25519
 *     token TEXT             or token-b64 BASE64; such a file is readable by its owner only
 *     secret TEXT            shared, besides the key
 *     remote IP[:PORT]       where it has to come from
 *     address IP[/BITS]      its address in the tunnel
 *     hub-address IP         the hub's, where it is not the hub's --address
 *     routes CIDR[,CIDR]     networks behind it
 *     sources CIDR[,CIDR]    what else its packets may come from, as with a routing daemon
 *     lifetime SECONDS       how long an authentication is good; 0: until it is silent
 */
import {
  type Cidr,
  type Endpoint,
  familyOf,
  formatCidr,
  type Ip,
  parseCidr,
  parseEndpoint,
  parseIp,
} from "../addr.ts";
import { fromBase64 } from "../bytes.ts";
import { type ConfigProblem, parseConfig } from "../config.ts";
import { checkPublicKey } from "../ed25519.ts";
import { errorText } from "../errors.ts";
import { KEY_LENGTH } from "../keys.ts";
import { NAME_LENGTH } from "./protocol/gretun/wire.ts";

export interface ClientFile {
  name: string;
  publicKey?: Uint8Array;
  token?: Uint8Array;
  secret?: string;
  /** Port 0: any. */
  remote?: Endpoint;
  address?: Cidr;
  hubAddress?: Ip;
  routes: Cidr[];
  sources?: Cidr[];
  lifetimeMs?: number;
}

/** Letters, digits, `.`, `_`, `-`; not hidden, no editor's left-overs. */
export function isClientName(name: string): boolean {
  return name.length <= NAME_LENGTH && /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name) &&
    !/\.(swp|tmp|bak|dpkg-\w+)$/.test(name) && !name.endsWith("~");
}

type Draft = Partial<ClientFile>;

const KEYS: Record<string, (draft: Draft, value: string) => void> = {
  "public-key": (draft, value) => draft.publicKey = parsePublicKey(value),
  token: (draft, value) => draft.token = new TextEncoder().encode(value),
  "token-b64": (draft, value) => draft.token = fromBase64(value),
  secret: (draft, value) => draft.secret = value,
  remote: (draft, value) => draft.remote = parseRemote(value),
  address: (draft, value) => draft.address = parseAddress(value),
  "hub-address": (draft, value) => draft.hubAddress = parseIp(value),
  routes: (draft, value) => draft.routes = [...draft.routes ?? [], ...parseCidrs(value)],
  sources: (draft, value) => draft.sources = [...draft.sources ?? [], ...parseCidrs(value)],
  lifetime: (draft, value) => draft.lifetimeMs = parseSeconds(value) * 1000,
};
/** As ipipou's configuration has them. */
const ALIASES: Record<string, string> = {
  "auth-remote-pubkey-b64": "public-key",
  "auth-token": "token",
  "auth-token-b64": "token-b64",
  "auth-secret": "secret",
  "auth-lifetime": "lifetime",
  "tunl-ip": "hub-address",
  "tunl-peer-ip": "address",
};

/** An empty file is right: what a protocol needs is looked at where it is used. */
export function parseClientFile(
  name: string,
  text: string,
): { client: ClientFile } | { problems: ConfigProblem[] } {
  const { lines, problems } = parseConfig(text);
  const draft: Draft = {};
  for (const { line, key, value } of lines) {
    const set = KEYS[ALIASES[key] ?? key];
    if (!set || !Object.hasOwn(KEYS, ALIASES[key] ?? key)) {
      problems.push({ line, text: `unknown key ${key}` });
    } else if (value === undefined) problems.push({ line, text: `${key} has no value` });
    else tryLine(problems, line, key, () => set(draft, value));
  }
  const { token } = draft;
  if (token?.length === 0) problems.push({ line: 1, text: "the token is empty" });
  return problems.length > 0
    ? { problems }
    : { client: { ...draft, name, routes: draft.routes ?? [] } };
}

function tryLine(problems: ConfigProblem[], line: number, key: string, set: () => void): void {
  try {
    set();
  } catch (error) {
    problems.push({ line, text: `${key}: ${errorText(error)}` });
  }
}

function parsePublicKey(value: string): Uint8Array {
  const bytes = fromBase64(value);
  if (bytes.length !== KEY_LENGTH) {
    throw new RangeError(`${bytes.length} bytes, want ${KEY_LENGTH}`);
  }
  checkPublicKey(bytes);
  return bytes;
}

export function parseAddress(value: string): Cidr {
  if (value.includes("/")) return parseCidr(value);
  const ip = parseIp(value);
  return { ip, prefixLength: familyOf(ip) === 4 ? 32 : 128 };
}

function parseCidrs(value: string): Cidr[] {
  return value.split(/[\s,]+/).filter((text) => text !== "").map(parseAddress);
}

function parseRemote(value: string): Endpoint {
  return value.includes(":") ? parseEndpoint(value) : { ip: parseIp(value), port: 0 };
}

function parseSeconds(value: string): number {
  const match = /^(\d{1,9})s?$/.exec(value);
  if (!match) throw new SyntaxError(`${JSON.stringify(value)} is not a number of seconds`);
  return Number(match[1]);
}

/** Inner sources that this client's packets may have. */
export function allowedSources(client: ClientFile): Cidr[] {
  return [...ownNetworks(client), ...client.sources ?? []];
}

/** What is routed to this client and to no other. */
function ownNetworks({ address, routes }: ClientFile): Cidr[] {
  if (!address) return routes;
  const bits = familyOf(address.ip) === 4 ? 32 : 128;
  return [{ ip: address.ip, prefixLength: bits }, ...routes];
}

/**
 * Clients that two files give the same address or route: whoever comes second in the order of
 * names is left out, with the name of the one who has it.
 */
export function withoutConflicts(
  clients: readonly ClientFile[],
): { clients: ClientFile[]; conflicts: { name: string; with: string; cidr: string }[] } {
  const owners = new Map<string, string>();
  const kept: ClientFile[] = [];
  const conflicts: { name: string; with: string; cidr: string }[] = [];
  for (const client of clients.toSorted((a, b) => a.name < b.name ? -1 : 1)) {
    const cidrs = ownNetworks(client).map(formatCidr);
    const taken = cidrs.find((cidr) => owners.has(cidr));
    if (taken !== undefined) {
      conflicts.push({ name: client.name, with: owners.get(taken)!, cidr: taken });
      continue;
    }
    for (const cidr of cidrs) owners.set(cidr, client.name);
    kept.push(client);
  }
  return { clients: kept, conflicts };
}
