/**
 * IP addresses, endpoints (address and port) and CIDR prefixes. An address is kept in its one
 * canonical text form (RFC 5952 for IPv6, IPv4-mapped IPv6 turned into IPv4), so that `===`
 * compares addresses and a string can be a map's key.
 */
import { Reader, Writer } from "./bytes.ts";

export type Family = 4 | 6;

/** Canonical text of an IPv4 or IPv6 address, made by {@link parseIp} or {@link ipFromBytes}. */
export type Ip = string & { readonly __ip: true };

export interface Endpoint {
  ip: Ip;
  /** Host order, 0..65535. */
  port: number;
}

export interface Cidr {
  /** The address as written, host bits included. */
  ip: Ip;
  prefixLength: number;
}

const DOT = 46;
const DIGIT_0 = 48;

export const UNSPECIFIED_4 = "0.0.0.0" as Ip;
export const UNSPECIFIED = { 4: UNSPECIFIED_4, 6: "::" as Ip } as const;

export function familyOf(ip: Ip): Family {
  return ip.includes(":") ? 6 : 4;
}

/** Throws `SyntaxError`; a zone id is refused. */
export function parseIp(text: string): Ip {
  const bytes = text.includes(":") ? parse6(text) : parse4(text);
  if (!bytes) throw new SyntaxError(`Cannot parse IP address: ${JSON.stringify(text)}`);
  return ipFromBytes(bytes);
}

/** 4 or 16 bytes in network order; IPv4-mapped IPv6 becomes IPv4. Throws `RangeError`. */
export function ipFromBytes(bytes: Uint8Array): Ip {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Ip;
  if (bytes.length !== 16) {
    throw new RangeError(`IP address length is not 4 or 16: ${bytes.length}`);
  }
  if (isMapped(bytes)) return bytes.subarray(12).join(".") as Ip;
  return format6(bytes) as Ip;
}

/** 4 bytes for IPv4, 16 for IPv6, network order. */
export function ipBytes(ip: Ip): Uint8Array<ArrayBuffer> {
  return (ip.includes(":") ? parse6(ip) : parse4(ip))!;
}

/** 16 bytes in network order, IPv4 as IPv4-mapped. */
export function ipBytes16(ip: Ip): Uint8Array<ArrayBuffer> {
  if (familyOf(ip) === 6) return ipBytes(ip);
  return new Writer("network", 16).zeros(10).u16(0xffff).bytes(ipBytes(ip)).finish();
}

function isMapped(b: Uint8Array): boolean {
  return b.subarray(0, 10).every((x) => x === 0) && b[10] === 0xff && b[11] === 0xff;
}

/** Digit by digit: much of what this program does begins here. */
function parse4(text: string): Uint8Array<ArrayBuffer> | undefined {
  const bytes = new Uint8Array(4);
  let [count, value] = [0, -1];
  for (let i = 0; i <= text.length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : DOT;
    if (code >= DIGIT_0 && code <= DIGIT_0 + 9 && value !== 0) {
      value = Math.max(value, 0) * 10 + code - DIGIT_0;
      if (value > 255) return undefined;
    } else if (code === DOT && value >= 0 && count < 4) {
      bytes[count++] = value;
      value = -1;
    } else {
      return undefined;
    }
  }
  return count === 4 ? bytes : undefined;
}

function parse6(text: string): Uint8Array<ArrayBuffer> | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => half === "" ? [] : parseGroups(half));
  const [head, tail] = groups;
  if (!head || (halves.length === 2 && !tail)) return undefined;
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const writer = new Writer("network", 16);
  for (const group of [...head, ...Array(missing).fill(0), ...(tail ?? [])]) writer.u16(group);
  return writer.finish();
}

/** The 16-bit groups of one side of "::"; a dotted quad may stand last. */
function parseGroups(text: string): number[] | undefined {
  const parts = text.split(":");
  const groups: number[] = [];
  for (const [i, part] of parts.entries()) {
    if (part.includes(".") && i === parts.length - 1) {
      const quad = parse4(part);
      if (!quad) return undefined;
      const reader = new Reader(quad, "network");
      groups.push(reader.u16(), reader.u16());
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(parseInt(part, 16));
    } else {
      return undefined;
    }
  }
  return groups;
}

/** RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups as "::". */
function format6(bytes: Uint8Array): string {
  const reader = new Reader(bytes, "network");
  const groups = Array.from({ length: 8 }, () => reader.u16().toString(16));
  let best = { start: 0, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (groups[start + length] === "0") length++;
    if (length > best.length) best = { start, length };
  }
  if (best.length === 1) return groups.join(":");
  const head = groups.slice(0, best.start).join(":");
  const tail = groups.slice(best.start + best.length).join(":");
  return `${head}::${tail}`;
}

/** "192.0.2.1:7777" or "[2001:db8::1]:7777"; throws `SyntaxError`. */
export function parseEndpoint(text: string): Endpoint {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65535) {
    throw new SyntaxError(`Cannot parse endpoint: ${JSON.stringify(text)}: want ADDRESS:PORT`);
  }
  return { ip: parseIp((match[1] ?? match[2])!), port };
}

export function formatEndpoint({ ip, port }: Endpoint): string {
  return familyOf(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`;
}

export function equalEndpoints(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.ip === b.ip;
}

/** "10.0.0.1/24"; throws `SyntaxError`. */
export function parseCidr(text: string): Cidr {
  const match = /^(.+)\/(\d{1,3})$/.exec(text);
  if (!match) {
    throw new SyntaxError(`Cannot parse CIDR: ${JSON.stringify(text)}: want ADDRESS/BITS`);
  }
  const ip = parseIp(match[1]!);
  const prefixLength = Number(match[2]);
  if (prefixLength > (familyOf(ip) === 4 ? 32 : 128)) {
    throw new SyntaxError(`Cannot parse CIDR: ${JSON.stringify(text)}: prefix length too large`);
  }
  return { ip, prefixLength };
}

/** The prefix that has this address alone. */
export function hostCidr(ip: Ip): Cidr {
  return { ip, prefixLength: familyOf(ip) === 4 ? 32 : 128 };
}

export function formatCidr({ ip, prefixLength }: Cidr): string {
  return `${ip}/${prefixLength}`;
}

/** Whether `ip` lies in `cidr`; addresses of the other family never do. */
export function cidrContains(cidr: Cidr, ip: Ip): boolean {
  return startsAlike(ipBytes(cidr.ip), ipBytes(ip), cidr.prefixLength);
}

function startsAlike(net: Uint8Array, bytes: Uint8Array, bits: number): boolean {
  if (net.length !== bytes.length) return false;
  for (let bit = 0; bit < bits; bit += 8) {
    const mask = (0xff00 >> Math.min(8, bits - bit)) & 0xff;
    if ((net[bit >> 3]! & mask) !== (bytes[bit >> 3]! & mask)) return false;
  }
  return true;
}

const cidrs = (...texts: string[]) => texts.map(parseCidr);
const LOOPBACK = cidrs("127.0.0.0/8", "::1/128");
const LINK_LOCAL = cidrs("169.254.0.0/16", "fe80::/10");
const MULTICAST = cidrs("224.0.0.0/4", "ff00::/8");
/**
 * "This network" and what is kept for the future (RFC 6890), broadcast among it; of IPv6 what was given
 * up: IPv4-compatible and IPv4-translated addresses (RFC 4291, RFC 6145), those of a site (RFC 3879).
 */
const RESERVED = cidrs(
  ...["0.0.0.0/8", "240.0.0.0/4"],
  ...["::/96", "::ffff:0:0:0/96", "fec0::/10"],
);
/** RFC 1918, RFC 6598 (shared address space of carrier NATs), RFC 4193, RFC 8215 (translators). */
export const PRIVATE_NETWORKS: readonly Cidr[] = cidrs(
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "fc00::/7",
  "64:ff9b:1::/48",
);
/** Where packets to an address of IPv6 end at one of IPv4, and where that lies in it: RFC 6052, RFC 3056. */
const CARRIERS = [
  { net: parseCidr("64:ff9b::/96"), offset: 12 },
  { net: parseCidr("2002::/16"), offset: 2 },
] as const;

function within(ranges: readonly Cidr[]): (ip: Ip) => boolean {
  const nets = ranges.map(({ ip, prefixLength }) => ({ bytes: ipBytes(ip), prefixLength }));
  return (ip) => {
    const bytes = ipBytes(ip);
    return nets.some((net) => startsAlike(net.bytes, bytes, net.prefixLength));
  };
}
export const isLoopback = within(LOOPBACK);
export const isLinkLocal = within(LINK_LOCAL);
export const isMulticast = within(MULTICAST);
const isReserved = within(RESERVED);
export const isPrivate = within(PRIVATE_NETWORKS);

/** Whether it means something only in a network or host of its own. */
export function isInner(ip: Ip): boolean {
  return isPrivate(ip) || isLoopback(ip) || isLinkLocal(ip);
}
export function isUnspecified(ip: Ip): boolean {
  return ip === UNSPECIFIED_4 || ip === "::";
}

/** Where packets to it end, as far as the address tells. */
export function endOf(ip: Ip): Ip {
  if (familyOf(ip) === 4) return ip;
  const carrier = CARRIERS.find(({ net }) => cidrContains(net, ip));
  return carrier ? ipFromBytes(ipBytes(ip).subarray(carrier.offset, carrier.offset + 4)) : ip;
}

/** Whether a datagram could be sent to it from another host: not every byte pattern is a place. */
export function isUsableEndpoint({ ip, port }: Endpoint): boolean {
  const end = endOf(ip);
  return port !== 0 && !isReserved(end) && !isLoopback(end) && !isLinkLocal(end) &&
    !isMulticast(end);
}
