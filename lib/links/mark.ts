/**
 * The mark of whatever gretun makes, as the link's alias: which program made it, on which UDP port,
 * and for whom. The kernel keeps it as long as the link, so no state file can disagree with it: by
 * it links are adopted after a crash, left alone by others, and known to use a FOU port.
 */
import { KEY_LENGTH } from "../keys.ts";
import type { Link } from "../netlink.ts";

/** Programs that keep links for as long as they run. One port is one daemon's. */

export type DaemonRole = "up" | "hub" | "spoke";

/** A tunnel with an encapsulation that `gretun create` made; others have no mark. */
export interface CreateMark {
  by: "create";
  /** The FOU port that it receives on. */
  port: number;
  /** Whether gretun opened the port, with this tunnel or an earlier one. */
  opened: boolean;
}

export interface DaemonMark {
  by: DaemonRole;
  port: number;
  /** Whom the link leads to: a node key, the name of a hub's client, or that of a spoke's hub. */
  id: string;
  /** A port besides the daemon's own that is open for this link. */
  extraPort?: number;
  /** Of which the link's keys are, in hex. */
  session?: string;
}

export type Mark = CreateMark | DaemonMark;

/** What `id` is. */
const FAR_ENDS: Record<DaemonRole, string> = { up: "peer", hub: "client", spoke: "hub" };

/** The interface alias. Those of all versions are the same. */
export function formatMark(mark: Mark): string {
  if (mark.by === "create") {
    return `gretun create fou-port ${mark.port} ${mark.opened ? "opened" : "shared"}`;
  }
  const { by, port, id, extraPort, session } = mark;
  // Earlier versions know the mark by its beginning, up to the extra port.
  const extra = extraPort === undefined && !session ? "" : ` from port ${extraPort ?? 0}`;
  const last = session ? ` session ${session}` : "";
  return `gretun ${by} port ${port} ${FAR_ENDS[by]} ${id}${extra}${last}`;
}

/** Undefined for links of others. */
export function markOf({ alias }: Pick<Link, "alias">): Mark | undefined {
  const [, by = "", words = ""] = /^gretun (create|up|hub|spoke) (.*)$/.exec(alias ?? "") ?? [];
  if (by === "create") return parseCreate(words);
  return by === "" ? undefined : parseDaemon(by as DaemonRole, words);
}

function parseCreate(words: string): CreateMark | undefined {
  const [, port, how] = /^fou-port (\d{1,5}) (opened|shared)$/.exec(words) ?? [];
  return port === undefined ? undefined : {
    by: "create",
    port: Number(port),
    opened: how === "opened",
  };
}

function parseDaemon(by: DaemonRole, words: string): DaemonMark | undefined {
  const [, port, farEnd, rest] = /^port (\d{1,5}) (peer|client|hub) (.+)$/.exec(words) ?? [];
  if (port === undefined || farEnd !== FAR_ENDS[by]) return undefined;
  const mark = { by, port: Number(port) };
  // Names of clients are the users'; keys are not.
  return by === "up" ? parsePeer(mark, rest!) : { ...mark, id: rest! };
}

function parsePeer(mark: { by: DaemonRole; port: number }, rest: string): DaemonMark | undefined {
  const [id = "", extra = ""] = rest.split(" from port ");
  if (id.length !== 2 * KEY_LENGTH) return undefined;
  const [, port, session] = /^(\d{1,5})(?: session ([0-9a-f]{64}))?$/.exec(extra) ?? [];
  const extraPort = Number(port);
  const isPort = extraPort > 0 && extraPort < 65_536;
  return { ...mark, id, ...(isPort ? { extraPort } : {}), ...(session ? { session } : {}) };
}

/** Of a running or killed daemon's link. */
export function daemonMarkOf(link: Pick<Link, "alias">): DaemonMark | undefined {
  const mark = markOf(link);
  return mark?.by === "create" ? undefined : mark;
}

export function createMarkOf(link: Pick<Link, "alias">): CreateMark | undefined {
  const mark = markOf(link);
  return mark?.by === "create" ? mark : undefined;
}

/** The links that the daemon on `port` has or left behind, with their marks. */
export function linksOf(
  links: readonly Link[],
  daemon: { role: DaemonRole; port: number },
): { link: Link; mark: DaemonMark }[] {
  return links.flatMap((link) => {
    const mark = daemonMarkOf(link);
    return mark?.by === daemon.role && mark.port === daemon.port ? [{ link, mark }] : [];
  });
}
