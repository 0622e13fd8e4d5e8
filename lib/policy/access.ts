/** What one node may open at another: protocols and ports, as a policy and the coordinator write them. */

/** From the first port to the last. */
export type PortRange = readonly [first: number, last: number];

/** Ranges are in order and apart. */
export interface Access {
  tcp: readonly PortRange[];
  udp: readonly PortRange[];
  /** Of IPv4 and IPv6. */
  icmp: boolean;
  /** All other protocols. */
  others: boolean;
}

const PORTED = ["tcp", "udp"] as const;
const LAST_PORT = 65_535;
const ALL_PORTS: readonly PortRange[] = [[0, LAST_PORT]];

export const NOTHING: Access = { tcp: [], udp: [], icmp: false, others: false };
export const EVERYTHING: Access = { tcp: ALL_PORTS, udp: ALL_PORTS, icmp: true, others: true };

/** "any", "icmp", "tcp", "udp:53", "tcp:22,8000-8999". Throws `RangeError`. */
export function parseAccess(word: string): Access {
  if (word === "any") return EVERYTHING;
  if (word === "icmp") return { ...NOTHING, icmp: true };
  const [, protocol, ports] = /^(tcp|udp)(?::(.*))?$/.exec(word) ?? [];
  if (!protocol) {
    throw new RangeError(`${JSON.stringify(word)} is none of any, icmp, tcp[:PORTS], udp[:PORTS]`);
  }
  const ranges = ports === undefined ? ALL_PORTS : joined(ports.split(",").map(parseRange));
  return { ...NOTHING, [protocol]: ranges };
}

function parseRange(text: string): PortRange {
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const range = [Number(first), Number(last)] as const;
  if (first !== undefined && range[0] >= 1 && range[0] <= range[1] && range[1] <= LAST_PORT) {
    return range;
  }
  throw new RangeError(`${JSON.stringify(text)} is no port from 1 to 65535, nor a range of them`);
}

/** The fewest words; none for nothing. */
export function formatAccess(access: Access): string[] {
  if (isEverything(access)) return ["any"];
  const ported = PORTED.flatMap((protocol) => {
    const ranges = access[protocol];
    if (ranges.length === 0) return [];
    if (isAll(ranges)) return [protocol];
    const ports = ranges.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`);
    return [`${protocol}:${ports.join(",")}`];
  });
  return [...ported, ...(access.icmp ? ["icmp"] : [])];
}

export function isEverything({ tcp, udp, icmp, others }: Access): boolean {
  return isAll(tcp) && isAll(udp) && icmp && others;
}

export function isNothing(access: Access): boolean {
  return !overlaps(access, EVERYTHING);
}

export function union(...all: Access[]): Access {
  return {
    tcp: joined(all.flatMap(({ tcp }) => tcp)),
    udp: joined(all.flatMap(({ udp }) => udp)),
    icmp: all.some(({ icmp }) => icmp),
    others: all.some(({ others }) => others),
  };
}

/** Whether all of `part` is in it. */
export function contains(access: Access, part: Access): boolean {
  const hasRange = (own: readonly PortRange[], [first, last]: PortRange) =>
    own.some((range) => range[0] <= first && last <= range[1]);
  return PORTED.every((name) => part[name].every((range) => hasRange(access[name], range))) &&
    (access.icmp || !part.icmp) && (access.others || !part.others);
}

/** Whether they have anything in common. */
export function overlaps(a: Access, b: Access): boolean {
  const meets = ([first, last]: PortRange, [from, to]: PortRange) => first <= to && from <= last;
  return PORTED.some((name) => a[name].some((x) => b[name].some((y) => meets(x, y)))) ||
    (a.icmp && b.icmp) || (a.others && b.others);
}

function joined(ranges: readonly PortRange[]): readonly PortRange[] {
  const result: [number, number][] = [];
  for (const [first, last] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const before = result.at(-1);
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else result.push([first, last]);
  }
  return isAll(result) ? ALL_PORTS : result;
}

function isAll(ranges: readonly PortRange[]): boolean {
  return ranges.some(([first, last]) => first <= 1 && last === LAST_PORT);
}
