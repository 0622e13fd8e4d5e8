/**
 * The mark that `gretun create` leaves on a tunnel with an encapsulation, as the link's alias:
 * which FOU port it receives on, and whether gretun opened that port. The kernel keeps it as long
 * as the link, so no state file can disagree with it: a port is closed with the last tunnel that
 * is marked with it, and never when the mark says that somebody else opened it.
 */
import type { Family } from "../addr.ts";
import { isTunnelKind, type Link, outerFamily } from "../netlink.ts";

const PREFIX = "gretun create fou-port";
/** Links of `gretun up` belong to a daemon. */
const DAEMON_PREFIX = "gretun up ";

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

/** Whether a running or killed `gretun up` made the link. */
export function isDaemons({ alias }: Pick<Link, "alias">): boolean {
  return alias?.startsWith(DAEMON_PREFIX) ?? false;
}

/**
 * Whether packets may come to the link by that port: the mark says so; of links of others, which
 * have none, their own ports are the best guess, as both ends mostly use one number.
 */
export function usesFouPort(link: Link, port: number, family: Family): boolean {
  if (!isTunnelKind(link.kind) || outerFamily(link.kind) !== family) return false;
  const mark = markOf(link);
  if (mark) return mark.port === port;
  const encap = link.tunnel?.encap;
  return encap !== undefined && (encap.sport === port || encap.dport === port);
}
