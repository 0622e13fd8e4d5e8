/**
 * What `gretun create` and `gretun delete` will do, decided before anything is touched: from specs
 * and facts of the host to steps. Pure.
 */
import { GretunError } from "../errors.ts";
import {
  createMarkOf,
  daemonMarkOf,
  formatHolder,
  formatMark,
  isFouPortOfOthers,
  isGre,
  isTunnel,
  MIN_MTU,
  overheadBytes,
  usesFouPort,
} from "../links/mod.ts";
import type { LockHolder } from "../linux/mod.ts";
import {
  type FouPort,
  isTunnelKind,
  type Link,
  outerFamily,
  type Payload,
  type Tunnel,
  type TunnelEncap,
  type TunnelKind,
} from "../netlink.ts";
import type { AddLink, Step } from "./steps.ts";
import { carriesIpv6, MAX_MTU, MIN_IPV6_MTU, type TunnelSpec } from "./validate.ts";

/** What the way to the other host carries. */
export interface OuterPath {
  mtu: number;
  /** "assumed" when there is no way yet. */
  source: "route" | "device" | "assumed";
}

export interface HostFacts {
  links: readonly Link[];
  /** Empty while the kernel has no FOU. */
  fouPorts: readonly FouPort[];
  /** Who runs on a port, of those that links or FOU ports have. */
  daemons: ReadonlyMap<number, LockHolder>;
  /** Kernel modules that are loaded. */
  modules: ReadonlySet<string>;
  /** By {@link pathKey}. */
  paths: ReadonlyMap<string, OuterPath>;
}

export interface Plan {
  steps: Step[];
  /** What will work, but maybe not as meant. */
  warnings: string[];
}

/** Tunnels with the same key share their way. */
export function pathKey({ remote, device = "" }: TunnelSpec): string {
  return `${remote}%${device}`;
}

const MODULES: Record<TunnelKind, string> = {
  gre: "ip_gre",
  gretap: "ip_gre",
  ipip: "ipip",
  sit: "sit",
  ip6gre: "ip6_gre",
  ip6gretap: "ip6_gre",
  ip6tnl: "ip6_tunnel",
};

/** Without them the kernel refuses the tunnel; fou6 is what sends over IPv6. */
export function modulesOf({ kind, encap }: Pick<TunnelSpec, "kind" | "encap">): string[] {
  if (!encap) return [MODULES[kind]];
  return [MODULES[kind], "fou", ...(outerFamily(kind) === 6 ? ["fou6"] : [])];
}

/** Throws `GretunError` for what the host would refuse: names, endpoints and ports in use. */
export function planCreate(specs: readonly TunnelSpec[], facts: HostFacts): Plan {
  const warnings: string[] = [];
  const modules = new Set(specs.flatMap(modulesOf).filter((name) => !facts.modules.has(name)));
  const steps: Step[] = [...modules].map((module) => ({ do: "load-module", module }));
  const known = new KnownLinks(facts.links);
  const ports = new PortPlan(facts);
  for (const spec of specs) {
    const link = linkStep(spec, facts, warnings);
    known.add(spec, link.tunnel);
    const mark = ports.use(spec, steps);
    steps.push(link);
    if (mark) steps.push({ do: "mark-link", name: spec.name, alias: mark });
    steps.push(...innerSteps(spec));
    warnAboutPort(spec, warnings);
  }
  return { steps, warnings };
}

function innerSteps({ name, addresses, routes }: TunnelSpec): Step[] {
  return [
    ...addresses.map((address): Step => ({ do: "add-address", name, address })),
    { do: "bring-up", name },
    ...routes.map((destination): Step => ({ do: "add-route", name, destination })),
  ];
}

// --- link

function linkStep(spec: TunnelSpec, facts: HostFacts, warnings: string[]): AddLink {
  const { name, kind, device } = spec;
  const tunnel = toTunnel(spec, facts.links);
  const mtu = chooseMtu(spec, facts, warnings);
  return { do: "add-link", name, kind, tunnel, mtu, ...(device === undefined ? {} : { device }) };
}

function toTunnel(spec: TunnelSpec, links: readonly Link[]): Tunnel {
  const { local, remote, ikey, okey, csum, seq, ttl, tos, pmtudisc, encap, payload } = spec;
  return {
    local,
    remote,
    ttl,
    tos,
    pmtudisc,
    ...(ikey === undefined ? {} : { ikey }),
    ...(okey === undefined ? {} : { okey }),
    ...(csum ? { csum: "both" } : {}),
    ...(seq ? { seq: "both" } : {}),
    ...(spec.device === undefined ? {} : { device: deviceIndex(spec.device, links) }),
    ...(encap ? { encap } : {}),
    ...(payload ? { payload } : {}),
  };
}

function deviceIndex(name: string, links: readonly Link[]): number {
  const device = links.find((link) => link.name === name);
  if (device) return device.ifindex;
  throw new GretunError(`--dev ${JSON.stringify(name)}: there is no such device`, "See: ip link");
}

function chooseMtu(spec: TunnelSpec, facts: HostFacts, warnings: string[]): number {
  const path = facts.paths.get(pathKey(spec))!;
  const overhead = overheadOf(spec);
  const fitting = path.mtu - overhead;
  if (spec.mtu !== undefined) {
    if (spec.mtu > fitting && path.source !== "assumed") {
      warnings.push(
        `tunnel ${spec.name}: MTU ${spec.mtu} does not fit: the way to ${spec.remote} carries ` +
          `${path.mtu} bytes, which leaves ${fitting}`,
      );
    }
    return spec.mtu;
  }
  if (path.source === "assumed") {
    warnings.push(
      `tunnel ${spec.name}: there is no route to ${spec.remote} yet; MTU for a way of ${path.mtu} bytes`,
    );
  }
  const mtu = Math.min(Math.max(fitting, MIN_MTU), MAX_MTU);
  if (mtu >= MIN_IPV6_MTU || !carriesIpv6(spec)) return mtu;
  throw new GretunError(
    `cannot create tunnel ${spec.name}: the way to ${spec.remote} leaves ${fitting} bytes, ` +
      `and IPv6 in the tunnel needs ${MIN_IPV6_MTU}`,
    `Leave IPv6 out of the tunnel, or accept outer fragments with --mtu ${MIN_IPV6_MTU}`,
  );
}

function overheadOf({ kind, encap, okey, csum, seq }: TunnelSpec): number {
  const key = okey !== undefined;
  return overheadBytes({ kind, key, csum, seq, ...(encap ? { encap: encap.type } : {}) });
}

// --- links that are there, or planned

/** Names and endpoints, to find in one look what the kernel would refuse. */
class KnownLinks {
  readonly #kinds = new Map<string, string>();
  /** Names by what the kernel tells tunnels apart by. */
  readonly #names = new Map<string, string>();

  constructor(links: readonly Link[]) {
    for (const { name, kind, tunnel } of links) {
      this.#kinds.set(name, kind ?? "device");
      if (tunnel && isTunnelKind(kind)) this.#names.set(endpointsOf(kind, tunnel), name);
    }
  }

  add({ name, kind }: TunnelSpec, tunnel: Tunnel): void {
    const taken = this.#kinds.get(name);
    if (taken !== undefined) {
      const hint = isTunnelKind(taken)
        ? `Choose another name, or remove it with: gretun delete --name ${name}`
        : "Choose another name";
      throw new GretunError(`tunnel ${name} exists already: a link of type ${taken}`, hint);
    }
    const endpoints = endpointsOf(kind, tunnel);
    const same = this.#names.get(endpoints);
    if (same !== undefined) throw sameEndpoints(name, same, kind, tunnel);
    this.#kinds.set(name, kind);
    this.#names.set(endpoints, name);
  }
}

function endpointsOf(kind: TunnelKind, { local, remote, ikey, device }: Tunnel): string {
  return [kind, local ?? "any", remote, ikey ?? "", device ?? ""].join(" ");
}

function sameEndpoints(name: string, same: string, kind: TunnelKind, tunnel: Tunnel): GretunError {
  const key = tunnel.ikey === undefined ? "" : ` and key ${tunnel.ikey}`;
  const ports = tunnel.encap ? "; UDP ports do not tell tunnels apart" : "";
  return new GretunError(
    `cannot create tunnel ${name}: ${same} has type ${kind}, local ${tunnel.local}, ` +
      `remote ${tunnel.remote}${key} already${ports}`,
    isGre(kind) ? "Give one of them another --key" : "Use --type gre with a --key for each",
  );
}

// --- FOU ports

const IPPROTO_GRE = 47;
const IPPROTO: Record<Payload, number> = { any: 41, ipv4: 4, ipv6: 41 };

/** The receive port that the tunnel needs. */
function fouPortOf({ kind, encap, fouPort, payload }: TunnelSpec): FouPort | undefined {
  return encap && fouPort !== undefined ? receivePort(fouPort, kind, encap, payload) : undefined;
}

function receivePort(
  number: number,
  kind: TunnelKind,
  { type }: TunnelEncap,
  payload: Payload | undefined,
): FouPort {
  const port = { port: number, family: outerFamily(kind) };
  if (type === "gue") return { ...port, type };
  return { ...port, type: "direct", ipproto: payload ? IPPROTO[payload] : IPPROTO_GRE };
}

/** Which ports are open, who opened them, and what the tunnels before have added. */
class PortPlan {
  readonly #links: readonly Link[];
  readonly #ports: FouPort[];
  readonly #daemons: HostFacts["daemons"];
  readonly #opened = new Set<string>();

  constructor({ links, fouPorts, daemons }: HostFacts) {
    this.#links = links;
    this.#ports = [...fouPorts];
    this.#daemons = daemons;
  }

  /** Adds the step that opens the port, where it is not open; gives the tunnel's mark. */
  use(spec: TunnelSpec, steps: Step[]): string | undefined {
    const wanted = fouPortOf(spec);
    if (!wanted) return undefined;
    const present = this.#ports.find((p) => samePlace(p, wanted));
    if (!present) {
      this.#ports.push(wanted);
      this.#opened.add(placeOf(wanted));
      steps.push({ do: "open-fou-port", port: wanted });
    } else if (!serves(present, wanted, spec)) throw portTaken(present, wanted, spec);
    return formatMark({ by: "create", port: wanted.port, opened: this.#isOurs(wanted) });
  }

  #isOurs(port: FouPort): boolean {
    return this.#opened.has(placeOf(port)) || isOpenedByGretun(port, this.#links) ||
      this.#isDaemons(port);
  }

  /** Whether a daemon opened it, and leaves it open if this tunnel still uses it then. */
  #isDaemons({ port, family }: FouPort): boolean {
    if (isFouPortOfOthers(this.#links, port, family)) return false;
    return this.#daemons.has(port) ||
      this.#links.some((link) => daemonMarkOf(link) && usesFouPort(link, port, family));
  }
}

const placeOf = ({ port, family }: FouPort) => `${port}/${family}`;
const samePlace = (a: FouPort, b: FouPort) => a.port === b.port && a.family === b.family;

/** By the marks of tunnels; a port of another kind was closed by others and opened anew. */
function isOpenedByGretun(port: FouPort, links: readonly Link[]): boolean {
  return links.some((link) => {
    const { kind, tunnel } = link;
    const mark = createMarkOf(link);
    if (!mark?.opened || !isTunnelKind(kind) || !tunnel?.encap) return false;
    const wanted = receivePort(mark.port, kind, tunnel.encap, tunnel.payload);
    return samePlace(wanted, port) && sameService(wanted, port);
  });
}

const sameService = (a: FouPort, b: FouPort) =>
  a.type === b.type && (a.type === "gue" || a.ipproto === b.ipproto);

/** Whether the tunnel's packets get through a port that is open. */
function serves(present: FouPort, wanted: FouPort, { local }: TunnelSpec): boolean {
  const isBound = present.peer !== undefined || present.ifindex !== undefined ||
    (present.local !== undefined && present.local !== local);
  return sameService(present, wanted) && !isBound;
}

function portTaken(present: FouPort, wanted: FouPort, { name }: TunnelSpec): GretunError {
  const what = ({ type, ipproto }: FouPort) =>
    type === "gue" ? "gue" : `fou of protocol ${ipproto}`;
  const bound = sameService(present, wanted) ? ", bound to other addresses" : "";
  return new GretunError(
    `cannot create tunnel ${name}: UDP port ${wanted.port} is a FOU port already, for ` +
      `${what(present)}${bound}, and this tunnel needs ${what(wanted)}`,
    "Choose another one with --fou-port, or another --encap-dport at both ends",
  );
}

/** Ports that firewalls and other programs know as something else. */
const KNOWN_PORTS: Record<number, string> = {
  53: "DNS",
  67: "DHCP servers",
  68: "DHCP clients",
  123: "NTP",
  443: "HTTPS (QUIC)",
  500: "IKE",
  4500: "IPsec NAT traversal",
};

function warnAboutPort({ name, encap }: TunnelSpec, warnings: string[]): void {
  const user = encap && KNOWN_PORTS[encap.dport];
  if (user) warnings.push(`tunnel ${name}: UDP port ${encap.dport} is that of ${user}`);
}

// --- deleting

export interface Removal {
  tunnels: Link[];
  /** Links of daemons that stay, each with why. */
  left: string[];
}

/**
 * Which tunnels go: those named, or all that `list` shows but those of daemons, which come back for
 * what they left behind. Throws `GretunError` for a name that a running daemon has. With `force`
 * daemons are not asked.
 */
export function tunnelsToDelete(
  { links, daemons }: Pick<HostFacts, "links" | "daemons">,
  names: readonly string[] | "all",
  force: boolean,
): Removal {
  if (names === "all") {
    const all = links.filter(isTunnel);
    const left = force ? [] : all.filter((link) => daemonMarkOf(link));
    return {
      tunnels: all.filter((link) => !left.includes(link)),
      left: left.map((link) => `${link.name} belongs to ${ownerOf(link, daemons)}`),
    };
  }
  const tunnels = names.map((name) => findTunnel(links, name));
  const taken = force ? undefined : tunnels.find((link) => runningOwner(link, daemons));
  if (!taken) return { tunnels, left: [] };
  throw new GretunError(
    `tunnel ${taken.name} belongs to ${ownerOf(taken, daemons)}, which would make it again`,
    "Stop that program instead, or add --force",
  );
}

function runningOwner(link: Link, daemons: HostFacts["daemons"]): LockHolder | undefined {
  const mark = daemonMarkOf(link);
  const holder = mark && daemons.get(mark.port);
  return holder?.role === mark?.by ? holder : undefined;
}

/** As in "gretun up (pid 12)". */
function ownerOf(link: Link, daemons: HostFacts["daemons"]): string {
  const holder = runningOwner(link, daemons);
  if (holder) return formatHolder(holder);
  const { by, port } = daemonMarkOf(link)!;
  return `gretun ${by} on port ${port}, which does not run`;
}

/** The links, then the ports that gretun opened and that no other tunnel and no daemon uses. */
export function planDelete(
  { links, fouPorts, daemons }: Pick<HostFacts, "links" | "fouPorts" | "daemons">,
  tunnels: readonly Link[],
): Step[] {
  const gone = new Set(tunnels.map(({ ifindex }) => ifindex));
  const remaining = links.filter(({ ifindex }) => !gone.has(ifindex));
  const ports = fouPorts.filter((port) =>
    isOpenedByGretun(port, tunnels) && !daemons.has(port.port) &&
    !remaining.some((link) => usesFouPort(link, port.port, port.family))
  );
  return [
    ...tunnels.map(({ name, ifindex }): Step => ({ do: "delete-link", name, ifindex })),
    ...ports.map((port): Step => ({ do: "close-fou-port", port })),
  ];
}

export class NoTunnelError extends GretunError {
  override name = "NoTunnelError";
}

/** Throws {@link NoTunnelError} where there is none; `GretunError` for no tunnel, or the kernel's own. */
export function findTunnel(links: readonly Link[], name: string): Link {
  const link = links.find((known) => known.name === name);
  if (!link) {
    throw new NoTunnelError(`tunnel ${name} not found`, "See what there is with: gretun list");
  }
  if (isTunnel(link)) return link;
  const what = isTunnelKind(link.kind)
    ? "the kernel's own fallback device"
    : `no tunnel but of type ${link.kind ?? "device"}`;
  throw new GretunError(`${name} is ${what}`, "See the tunnels with: gretun list");
}
