/**
 * The mark that `gretun create` leaves on a tunnel with an encapsulation, as the link's alias:
 * which FOU port it receives on, and whether gretun opened that port. The kernel keeps it as long
 * as the link, so no state file can disagree with it: a port is closed with the last tunnel that
 * is marked with it, and never when the mark says that somebody else opened it.
 */
import type { Family } from "../addr.ts";
import { isTunnelKind, type Link, outerFamily } from "../netlink.ts";

const PREFIX = "gretun create fou-port";
/** So begin the aliases of links of `gretun up`, which belong to a daemon. */
export const DAEMON_PREFIX = "gretun up ";

export interface FouMark {
  port: number;
  /** Whether gretun opened the port, with this tunnel or an earlier one. */
  opened: boolean;
}

export function formatMark({ port, opened }: FouMark): string {
  return `${PREFIX} ${port} ${opened ? "opened" : "shared"}`;
}

/** Undefined for links without encapsulation, and for those of others. */
export function markOf({ alias }: Pick<Link, "alias">): FouMark | undefined {
  const match = /^(\d{1,5}) (opened|shared)$/.exec(
    alias?.startsWith(PREFIX + " ") ? alias.slice(PREFIX.length + 1) : "",
  );
  return match ? { port: Number(match[1]), opened: match[2] === "opened" } : undefined;
}

/** The name that `gretun up` holds in the abstract unix namespace while it uses the port. */
export function daemonLock(port: number): string {
  return `gretun-up-${port}`;
}

/** Whether a running or killed `gretun up` made the link. */
export function isDaemons({ alias }: Pick<Link, "alias">): boolean {
  return alias?.startsWith(DAEMON_PREFIX) ?? false;
}

/**
 * Whether packets may come to the link by that port: the mark says so. Daemons send from the port
 * that they receive on; of links of others both their ports are the best guess, as both ends
 * mostly use one number.
 */
export function usesFouPort(link: Link, port: number, family: Family): boolean {
  if (!isTunnelKind(link.kind) || outerFamily(link.kind) !== family) return false;
  const mark = markOf(link);
  if (mark) return mark.port === port;
  const { sport, dport } = link.tunnel?.encap ?? {};
  return sport === port || (dport === port && !isDaemons(link));
}

/** Whether links tell that the port was open before gretun used it. */
export function isFouPortOfOthers(
  links: readonly Link[],
  port: number,
  family: Family,
): boolean {
  const users = links.filter((link) => !isDaemons(link) && usesFouPort(link, port, family));
  return users.length > 0 && !users.some((link) => markOf(link)?.opened);
}
