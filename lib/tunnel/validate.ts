/**
 * From the flags of `gretun create` to a tunnel that can be made: every rule that needs no look at
 * the host. What breaks one is a `UsageError` that names flag, value and rule.
 */
import {
  type Cidr,
  cidrContains,
  type Family,
  familyOf,
  formatCidr,
  type Ip,
  ipBytes,
  ipFromBytes,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  parseCidr,
  parseIp,
} from "../addr.ts";
import { UsageError } from "../errors.ts";
import { carriesFrames, FALLBACK_DEVICES, isGre, MIN_MTU } from "../links/mod.ts";
import { outerFamily, type Payload, type TunnelEncap, type TunnelKind } from "../netlink.ts";

export const DEFAULT_TTL = 64;
/** To the kernel: taken from the inner packet. */
export const TTL_INHERIT = 0;
export const TOS_INHERIT = 1;
export const MAX_MTU = 9000;
/** RFC 8200 section 5: what every link must carry. */
export const MIN_IPV6_MTU = 1280;
export const MAX_KEY = 0xffffffff;

/** By the names of the flags; numbers are in the ranges of their types already. */
export interface TunnelOptions {
  name: string;
  local: string;
  remote: string;
  type: TunnelKind;
  key?: number | undefined;
  ikey?: number | undefined;
  okey?: number | undefined;
  ttl: string;
  tos: string;
  dev?: string | undefined;
  pmtudisc: boolean;
  csum: boolean;
  seq: boolean;
  mtu: number;
  "tunnel-ip": readonly string[];
  route: readonly string[];
  encap: "none" | "fou" | "gue";
  "encap-sport"?: number | undefined;
  "encap-dport"?: number | undefined;
  "encap-csum": boolean;
  "fou-port"?: number | undefined;
}

/** A tunnel that obeys all rules. */
export interface TunnelSpec {
  name: string;
  kind: TunnelKind;
  local: Ip;
  remote: Ip;
  ikey?: number;
  okey?: number;
  csum: boolean;
  seq: boolean;
  /** 0: taken from the inner packet. */
  ttl: number;
  /** 1: taken from the inner packet. */
  tos: number;
  pmtudisc: boolean;
  /** Name of the device that outer packets leave by. */
  device?: string;
  encap?: TunnelEncap;
  /** Local UDP port of the encapsulation. */
  fouPort?: number;
  /** Of IPIP, SIT and ip6tnl. */
  payload?: Payload;
  /** Absent: measured. */
  mtu?: number;
  addresses: Cidr[];
  routes: Cidr[];
}

/** Throws `UsageError`. */
export function validateTunnel(options: TunnelOptions): TunnelSpec {
  const kind = options.type;
  const local = parseOuter("local", options.local);
  const remote = parseOuter("remote", options.remote);
  checkEncapFlags(options);
  checkMtu(options.mtu);
  checkName(options.name);
  checkOuter("local", local);
  checkOuter("remote", remote);
  checkPair(kind, local, remote, options.dev);
  if (options.dev !== undefined) checkLinkName("dev", options.dev);
  checkGreFlags(options);
  const addresses = parseAddresses(options["tunnel-ip"]);
  const routes = parseRoutes(options.route, remote);
  const spec: TunnelSpec = {
    name: options.name,
    kind,
    local,
    remote,
    ...keys(options),
    csum: options.csum,
    seq: options.seq,
    ttl: parseTtl(options.ttl),
    tos: parseTos(options.tos),
    pmtudisc: options.pmtudisc,
    ...(options.dev === undefined ? {} : { device: options.dev }),
    ...encapOf(options),
    ...(options.mtu === 0 ? {} : { mtu: options.mtu }),
    addresses,
    routes,
  };
  checkFragments(spec);
  const payload = payloadOf(spec);
  checkInnerMtu(spec);
  return payload ? { ...spec, payload } : spec;
}

function refuse(what: string, hint: string): never {
  throw new UsageError(what, hint);
}

const quote = (text: string) => JSON.stringify(text);

// --- outer addresses

function parseOuter(flag: string, text: string): Ip {
  try {
    return parseIp(text);
  } catch {
    refuse(
      `--${flag} ${quote(text)} is not an IP address`,
      "Give an IPv4 or IPv6 address, as in 192.0.2.1 or 2001:db8::1",
    );
  }
}

function checkOuter(flag: string, ip: Ip): void {
  const kinds: [(ip: Ip) => boolean, string][] = [
    [isUnspecified, "the unspecified address"],
    [isLoopback, "a loopback address"],
    [isMulticast, "a multicast address"],
  ];
  const wrong = kinds.find(([is]) => is(ip));
  if (!wrong) return;
  const whose = flag === "local" ? "this host" : "the other host";
  refuse(`--${flag} ${ip} is ${wrong[1]}`, `Give a unicast address of ${whose}`);
}

function checkPair(kind: TunnelKind, local: Ip, remote: Ip, dev: string | undefined): void {
  const family = outerFamily(kind);
  for (const [flag, ip] of [["local", local], ["remote", remote]] as const) {
    if (familyOf(ip) === family) continue;
    if (familyOf(local) === familyOf(remote)) refuseFamily(kind, flag, ip);
    refuse(
      `--${flag} ${ip} is IPv${familyOf(ip)} and ${
        flag === "local" ? "--remote" : "--local"
      } is not`,
      `Give two IPv${family} addresses for --type ${kind}`,
    );
  }
  if (local === remote) {
    refuse(`--remote ${remote} is the same as --local`, "Give the address of the other host");
  }
  if (familyOf(remote) === 6 && isLinkLocal(remote) && dev === undefined) {
    refuse(
      `--remote ${remote} is link-local and there is no --dev`,
      "Say with --dev which link it is on",
    );
  }
}

const OTHER_FAMILY: Record<TunnelKind, string> = {
  gre: "ip6gre",
  gretap: "ip6gretap",
  ipip: "ip6tnl",
  sit: "ip6tnl",
  ip6gre: "gre",
  ip6gretap: "gretap",
  ip6tnl: "ipip or sit",
};

function refuseFamily(kind: TunnelKind, flag: string, ip: Ip): never {
  refuse(
    `--${flag} ${ip} is IPv${familyOf(ip)}, and --type ${kind} goes over IPv${outerFamily(kind)}`,
    `For these addresses use --type ${OTHER_FAMILY[kind]}`,
  );
}

// --- names

/** Of every network namespace; "all" and "default" are sysctl's. */
const RESERVED_NAMES = [...FALLBACK_DEVICES, "lo", "all", "default"];

/** Of a tunnel that is to be made; throws `UsageError` with the flag's name. */
export function checkIfname(flag: string, name: string): void {
  if (/^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,15}$/.test(name)) return;
  refuse(
    `--${flag} ${quote(name)} is no interface name`,
    "Use 1 to 15 characters of A-Z, a-z, 0-9, _, - and .",
  );
}

/** Of a link that others may have made: whatever the kernel takes. Throws `UsageError`. */
export function checkLinkName(flag: string, name: string): void {
  const lengthBytes = new TextEncoder().encode(name).length;
  const isName = /^[^\s/:]+$/.test(name) && name !== "." && name !== ".." && lengthBytes <= 15;
  if (isName) return;
  refuse(
    `--${flag} ${quote(name)} is no interface name`,
    "Give one of 1 to 15 bytes, without blanks, slashes and colons, see: ip link",
  );
}

function checkName(name: string): void {
  checkIfname("name", name);
  if (!RESERVED_NAMES.includes(name)) return;
  refuse(`--name ${quote(name)} is the kernel's own`, "Choose another one");
}

// --- GRE's own, TTL, TOS

function checkGreFlags(options: TunnelOptions): void {
  const { type, key, ikey, okey, csum, seq } = options;
  if (!isGre(type)) {
    const given = Object.entries({ key, ikey, okey, csum, seq }).find(([, v]) => v);
    if (given) {
      const value = given[1] === true ? "" : ` ${given[1]}`;
      refuse(`--${given[0]}${value} is GRE's, and --type ${type} has none`, "Leave it out");
    }
  }
  const one = ikey !== undefined ? "ikey" : okey !== undefined ? "okey" : undefined;
  if (key === undefined || one === undefined) return;
  refuse(
    `--${one} ${options[one]} and --key ${key} exclude each other`,
    "Give --key for one key in both directions, or --ikey and --okey",
  );
}

/** 0 is no key, as ever. */
function keys({ key, ikey = key, okey = key }: TunnelOptions) {
  return { ...(ikey ? { ikey } : {}), ...(okey ? { okey } : {}) };
}

function parseTtl(text: string): number {
  if (text === "inherit") return TTL_INHERIT;
  const ttl = byte(text);
  if (ttl !== undefined) return ttl === 0 ? DEFAULT_TTL : ttl;
  refuse(
    `--ttl ${quote(text)} is no TTL`,
    `Give 1 to 255, 0 for ${DEFAULT_TTL}, or inherit for that of the inner packet`,
  );
}

function parseTos(text: string): number {
  if (text === "inherit") return TOS_INHERIT;
  const tos = byte(text);
  if (tos !== undefined && tos !== TOS_INHERIT) return tos;
  refuse(
    `--tos ${quote(text)} is no type of service`,
    "Give 0 to 255 (not 1), or inherit for that of the inner packet",
  );
}

function byte(text: string): number | undefined {
  const value = /^(0x[0-9a-f]+|0o[0-7]+|0b[01]+|\d+)$/i.test(text) ? Number(text) : NaN;
  return value <= 255 ? value : undefined;
}

/** The kernel always forbids fragments of these while their TTL is a number. */
function checkFragments({ kind, pmtudisc, ttl }: TunnelSpec): void {
  if (pmtudisc) return;
  if (outerFamily(kind) === 6) {
    refuse(
      `--pmtudisc=false cannot be with --type ${kind}: IPv6 packets are not fragmented on their way`,
      "Leave it out",
    );
  }
  if (isGre(kind) || ttl === TTL_INHERIT) return;
  refuse(
    `--pmtudisc=false cannot be with --type ${kind} and --ttl ${ttl}`,
    "Add --ttl inherit, or leave it out",
  );
}

// --- encapsulation

function checkEncapFlags(options: TunnelOptions): void {
  const { encap } = options;
  if (encap === "none") {
    for (const flag of ["encap-sport", "encap-dport", "fou-port"] as const) {
      const port = options[flag];
      if (port === undefined) continue;
      refuse(`--${flag} ${port} needs an encapsulation`, "Add --encap fou or --encap gue");
    }
    return;
  }
  if (options["encap-dport"]) return;
  const given = options["encap-dport"] === undefined ? "is missing" : "0 is no port";
  refuse(`--encap-dport ${given}: --encap ${encap} needs it`, "Add --encap-dport PORT, 1 to 65535");
}

function encapOf(options: TunnelOptions): { encap?: TunnelEncap; fouPort?: number } {
  const { encap, "encap-sport": sport = 0, "encap-dport": dport, "encap-csum": csum } = options;
  if (encap === "none" || dport === undefined) return {};
  return { encap: { type: encap, sport, dport, csum }, fouPort: options["fou-port"] ?? dport };
}

// --- MTU

function checkMtu(mtu: number): void {
  if (mtu === 0 || (mtu >= MIN_MTU && mtu <= MAX_MTU)) return;
  refuse(
    `--mtu ${mtu} is out of range`,
    `Give ${MIN_MTU} to ${MAX_MTU}, or leave it out to have it measured`,
  );
}

/** Whether IPv6 packets will certainly go in. */
export function carriesIpv6({ kind, addresses, routes }: TunnelSpec): boolean {
  return kind === "sit" || [...addresses, ...routes].some(({ ip }) => familyOf(ip) === 6);
}

function checkInnerMtu(spec: TunnelSpec): void {
  if (spec.mtu === undefined || spec.mtu >= MIN_IPV6_MTU || !carriesIpv6(spec)) return;
  refuse(
    `--mtu ${spec.mtu} is too small for IPv6 in the tunnel`,
    `Give at least ${MIN_IPV6_MTU}, or no IPv6 --tunnel-ip and --route`,
  );
}

// --- inner addresses and routes

function parsePrefix(flag: string, text: string): Cidr {
  try {
    return parseCidr(text);
  } catch {
    refuse(
      `--${flag} ${quote(text)} is not an address with a prefix length`,
      "Write it as in 10.0.0.1/30 or 2001:db8::1/64",
    );
  }
}

const HOST_BITS: Record<Family, number> = { 4: 32, 6: 128 };

/** The prefix's first address (`bit` 0) or last one. */
function edgeOf({ ip, prefixLength }: Cidr, bit: 0 | 1): Ip {
  const bytes = ipBytes(ip);
  for (let i = prefixLength; i < bytes.length * 8; i++) {
    const mask = 0x80 >> (i & 7);
    if (bit) bytes[i >> 3]! |= mask;
    else bytes[i >> 3]! &= ~mask;
  }
  return ipFromBytes(bytes);
}

function parseAddresses(texts: readonly string[]): Cidr[] {
  const addresses = texts.map((text) => parsePrefix("tunnel-ip", text));
  for (const address of addresses) checkInner(address);
  refuseTwice("tunnel-ip", addresses.map(({ ip }) => ip));
  return addresses;
}

function checkInner(address: Cidr): void {
  const { ip, prefixLength } = address;
  const text = formatCidr(address);
  const hint = "Give an address that this host can have in the tunnel, as in 10.0.0.1/30";
  for (
    const [is, what] of [
      [isUnspecified, "unspecified"],
      [isLoopback, "a loopback address"],
      [isMulticast, "a multicast address"],
    ] as const
  ) {
    if (is(ip)) refuse(`--tunnel-ip ${text} is ${what}`, hint);
  }
  const family = familyOf(ip);
  if (prefixLength === 0) refuse(`--tunnel-ip ${text} has a prefix of all addresses`, hint);
  // Both addresses of a /31 and of a /127 are hosts (RFC 3021, RFC 6164).
  if (prefixLength >= HOST_BITS[family] - 1) return;
  if (ip === edgeOf(address, 0)) {
    refuse(`--tunnel-ip ${text} is the network's own address`, hint);
  }
  if (family === 4 && ip === edgeOf(address, 1)) {
    refuse(`--tunnel-ip ${text} is the network's broadcast address`, hint);
  }
}

function parseRoutes(texts: readonly string[], remote: Ip): Cidr[] {
  const routes = texts.map((text) => parsePrefix("route", text));
  for (const route of routes) {
    const text = formatCidr(route);
    const network = edgeOf(route, 0);
    if (route.ip !== network) {
      refuse(
        `--route ${text} has bits behind its prefix`,
        `Write it as ${network}/${route.prefixLength}`,
      );
    }
    if (isMulticast(route.ip) || isLoopback(route.ip)) {
      refuse(`--route ${text} is no network of other hosts`, "Give a unicast network");
    }
    if (!cidrContains(route, remote)) continue;
    refuse(
      `--route ${text} contains --remote ${remote}: the tunnel would send its own packets into itself`,
      "Give smaller networks that leave it out",
    );
  }
  refuseTwice("route", routes.map(formatCidr));
  return routes;
}

function refuseTwice(flag: string, texts: readonly string[]): void {
  const twice = texts.find((text, i) => texts.indexOf(text) !== i);
  if (twice) refuse(`--${flag} ${twice} is given twice`, "Give it once");
}

// --- what is inside

/** What kinds that are not GRE are told to carry. */
function payloadOf(spec: TunnelSpec): Payload | undefined {
  const { kind, encap } = spec;
  if (isGre(kind) || carriesFrames(kind)) return undefined;
  if (kind === "ipip") return only(spec, 4);
  if (kind === "sit") return only(spec, 6);
  if (encap?.type !== "fou") return "any";
  const inner = [...spec.addresses, ...spec.routes];
  const other = inner.find(({ ip }) => familyOf(ip) !== familyOf(inner[0]!.ip));
  if (other) {
    refuse(
      `--encap fou carries one IP version in --type ${kind}, and ${formatCidr(other)} is another`,
      "Use --encap gue, or make a tunnel for each",
    );
  }
  return inner[0] && familyOf(inner[0].ip) === 4 ? "ipv4" : "ipv6";
}

function only(spec: TunnelSpec, family: Family): Payload {
  for (const [flag, list] of [["tunnel-ip", spec.addresses], ["route", spec.routes]] as const) {
    const other = list.find(({ ip }) => familyOf(ip) !== family);
    if (!other) continue;
    refuse(
      `--${flag} ${
        formatCidr(other)
      } is not IPv${family}, and --type ${spec.kind} carries nothing else`,
      "Use --type gre, which carries both",
    );
  }
  return family === 4 ? "ipv4" : "ipv6";
}
