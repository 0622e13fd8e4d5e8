/**
 * Outer packets that routes lead into a link of ours: each would be packed again and again. The guard
 * drops the first; here it is told.
 */
import type { Endpoint } from "../../addr.ts";
import { GretunError } from "../../errors.ts";
import type { RtNetlink } from "../../netlink.ts";

interface Placed {
  ifindex: number;
  ifname: string;
  remote: Endpoint;
}

export class OwnWays {
  readonly #onFault: (what: string, error: unknown) => void;
  /** Links that it was said of. */
  #told: ReadonlySet<string> = new Set();

  constructor(onFault: (what: string, error: unknown) => void) {
    this.#onFault = onFault;
  }

  /** Says it once of a link, until it is no longer so. */
  look(rtnl: RtNetlink, links: Iterable<readonly [string, Placed]>): void {
    const all = [...links];
    const names = new Map(all.map(([, { ifindex, ifname }]) => [ifindex, ifname]));
    const found = new Set<string>();
    for (const [id, { remote }] of all) {
      const ifname = names.get(rtnl.tryRouteTo(remote.ip)?.device ?? 0);
      if (ifname === undefined) continue;
      found.add(id);
      if (!this.#told.has(id)) {
        this.#onFault("packets of a tunnel cannot go out", error(remote, ifname));
      }
    }
    this.#told = found;
  }
}

function error({ ip }: Endpoint, ifname: string): GretunError {
  return new GretunError(
    `the route to ${ip} leads through ${ifname}, which is a tunnel of ours`,
    `Give ${ip} a route of its own, see: ip route get ${ip}`,
  );
}
