/**
 * A link on which the far end cannot tell this host of routers, prefixes and other ways, nor of a way that
 * its packets are to take from here: what they say they are for is looked at before.
 */
import { familyOf } from "../../addr.ts";
import { GretunError } from "../../errors.ts";
import type { Host } from "../../host/mod.ts";
import { SystemError } from "../../linux/mod.ts";
import type { InnerLimits } from "../plane.ts";

const ROUTER_MESSAGES = {
  ipv6: { accept_ra: "0", accept_redirects: "0", autoconf: "0" },
  ipv4: { accept_redirects: "0", secure_redirects: "0", send_redirects: "0" },
};
const SOURCE_ROUTES = {
  ipv6: { seg6_enabled: "0", rpl_seg_enabled: "0" },
  ipv4: { accept_source_route: "0" },
};
/** `IN6_ADDR_GEN_MODE_NONE`, linux/if_link.h. */
const NO_LINK_LOCAL = { addr_gen_mode: "1" };

/**
 * Before the link comes up; link-local addresses are left to links that carry IPv6. Throws
 * `GretunError` for what the kernel does not take, as where /proc is read-only.
 */
export function quieten(
  host: Host,
  ifname: string,
  { sources }: InnerLimits,
): void {
  const carriesIpv6 = sources?.some(({ ip }) => familyOf(ip) === 6) ?? true;
  const ipv6 = {
    ...ROUTER_MESSAGES.ipv6,
    ...SOURCE_ROUTES.ipv6,
    ...(carriesIpv6 ? {} : NO_LINK_LOCAL),
  };
  const ipv4 = { ...ROUTER_MESSAGES.ipv4, ...SOURCE_ROUTES.ipv4 };
  const failed = [
    ...setAll(host, `/proc/sys/net/ipv6/conf/${ifname}`, ipv6),
    ...setAll(host, `/proc/sys/net/ipv4/conf/${ifname}`, ipv4),
  ];
  if (failed.length === 0) return;
  throw new GretunError(
    `cannot set ${failed.join(", ")}`,
    "Make /proc/sys/net writable for gretun, or set them in another way",
  );
}

/** What does not have its value afterwards; a kernel without the family has none to set. */
function setAll(host: Host, directory: string, settings: Record<string, string>): string[] {
  return Object.entries(settings).flatMap(([name, value]) => {
    const path = `${directory}/${name}`;
    try {
      host.writeFile(path, value);
      return host.readFile(path).trim() === value ? [] : [path];
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return error.code === "ENOENT" ? [] : [path];
    }
  });
}
