/** Warns of a pool that this host's own networks are in: they may be the nodes' networks too. */
import { type Cidr, formatCidr } from "../../addr.ts";
import { poolCollisions } from "../../coord/serve.ts";
import type { Log } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import { readHostView } from "../../links/mod.ts";
import { readKernelFile } from "../../linux/mod.ts";
import { RtNetlink } from "../../netlink.ts";

/** This host may be a node of the overlay too, on the port that nodes have by default. */
const OWN_NODE = { role: "up", port: 7777 } as const;

export function warnOfCollisions(pool: Cidr, log: Log): void {
  try {
    using rtnl = RtNetlink.open();
    const view = readHostView({ rtnl, readFile: readKernelFile, daemon: OWN_NODE });
    for (const found of poolCollisions(pool, view)) {
      log.warn("the pool collides with a network here: choose another --pool", {
        pool: formatCidr(pool),
        found,
      });
    }
  } catch (error) {
    log.debug("this host's networks are not known", { error: errorText(error) });
  }
}
