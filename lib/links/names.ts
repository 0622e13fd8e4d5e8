/** Names of links, and which links are there. */
import { GretunError } from "../errors.ts";
import type { LinkStats, RtNetlink } from "../netlink.ts";

/**
 * The pattern with `%d` replaced by the lowest number that gives a free name; those of `own` links
 * are known without asking.
 */
export function freeName(rtnl: RtNetlink, pattern: string, own: ReadonlySet<string>): string {
  for (let i = 0;; i++) {
    const name = pattern.replace("%d", String(i));
    if (!own.has(name) && !rtnl.link(name)) return name;
    if (name === pattern) {
      throw new GretunError(
        `cannot make another link: ${name} exists`,
        "Put %d into --iface, so that each link gets its own name",
      );
    }
  }
}

/** Of all links but `key`'s: where that one had a link, somebody has removed it. */
export function otherNames<Key>(
  links: Iterable<readonly [Key, { ifname: string }]>,
  key: Key,
): Set<string> {
  return new Set([...links].flatMap(([other, { ifname }]) => other === key ? [] : [ifname]));
}

/** Those whose link the kernel has no more. */
export function missing<Key>(
  rtnl: RtNetlink,
  links: Iterable<readonly [Key, { ifindex: number }]>,
): Key[] {
  const present = new Set(rtnl.links({ skipStats: true }).map(({ ifindex }) => ifindex));
  return [...links].filter(([, { ifindex }]) => !present.has(ifindex)).map(([key]) => key);
}

export type LinkCounters = Pick<LinkStats, "rxPackets" | "txPackets" | "rxBytes" | "txBytes">;

export function countersOf<Key>(
  rtnl: RtNetlink,
  links: Iterable<readonly [Key, { ifindex: number }]>,
): Map<Key, LinkCounters> {
  const stats = rtnl.linkStats();
  const counters = new Map<Key, LinkCounters>();
  for (const [key, { ifindex }] of links) {
    const found = stats.get(ifindex);
    if (found) counters.set(key, found);
  }
  return counters;
}
