/**
 * Receive ports of the kernel, which any number of links share: opened by the first, closed with the
 * last, and never when others opened them.
 */
import type { Family, Ip } from "../addr.ts";
import { GretunError } from "../errors.ts";
import {
  type Fou,
  hasCode,
  isTunnelKind,
  type Link,
  outerFamily,
  type RtNetlink,
} from "../netlink.ts";
import { createMarkOf, daemonMarkOf } from "./mark.ts";

export interface FouPlace {
  port: number;
  family: Family;
  /** IP protocol of what is inside. */
  ipproto: number;
  local?: Ip;
}

/**
 * Whether packets may come to the link by that port: the mark says so. Daemons send from the port
 * that they receive on; of links of others both their ports are the best guess, as both ends
 * mostly use one number.
 */
export function usesFouPort(link: Link, port: number, family: Family): boolean {
  if (!isTunnelKind(link.kind) || outerFamily(link.kind) !== family) return false;
  const mark = createMarkOf(link);
  if (mark) return mark.port === port;
  const { sport, dport } = link.tunnel?.encap ?? {};
  return sport === port || (dport === port && !daemonMarkOf(link));
}

/** Whether links tell that the port was open before gretun used it. */
export function isFouPortOfOthers(
  links: readonly Link[],
  port: number,
  family: Family,
): boolean {
  const users = links.filter((link) => !daemonMarkOf(link) && usesFouPort(link, port, family));
  return users.length > 0 && !users.some((link) => createMarkOf(link)?.opened);
}

/**
 * Opens the port, or shares one that is open: an earlier run left it, or a tunnel beside ours uses
 * it. When disposed it is closed, unless a link uses it by then or others opened it. Throws
 * `GretunError`, which tells of `flag`, for one that is taken.
 */
export function openFouPort(
  { rtnl, fou }: { rtnl: RtNetlink; fou: Fou },
  place: FouPlace,
  flag: string,
): Disposable {
  const { port, family } = place;
  const isOurs = addPort(fou, place, flag) || !isFouPortOfOthers(rtnl.links(), port, family);
  return {
    [Symbol.dispose]() {
      if (isOurs) closeFouPort({ rtnl, fou }, place);
    },
  };
}

/** False when it is open already. */
function addPort(fou: Fou, place: FouPlace, flag: string): boolean {
  const { port, family, ipproto } = place;
  try {
    fou.add({ ...place, type: "direct" });
    return true;
  } catch (error) {
    if (!hasCode(error, "EADDRINUSE")) throw error;
    const left = fou.ports().find((p) => p.port === port && p.family === family);
    if (left?.ipproto === ipproto && left.type === "direct") return false;
    throw new GretunError(
      `cannot open UDP port ${port}: ${left ? "another FOU port" : "another program"} has it`,
      `Choose another one with ${flag}, or look with: ss -ulpn 'sport = :${port}'`,
      { cause: error },
    );
  }
}

/** False when a link uses it: one of ours, or one that others made beside it by now. */
export function closeFouPort(
  { rtnl, fou }: { rtnl: RtNetlink; fou: Fou },
  { ipproto: _, ...place }: FouPlace,
): boolean {
  if (rtnl.links().some((link) => usesFouPort(link, place.port, place.family))) return false;
  try {
    fou.delete(place);
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error; // somebody has closed it
  }
  return true;
}
