/** What a killed run left behind. */
import { errorText, GretunError } from "../../errors.ts";
import type { Host } from "../../host/mod.ts";
import { NetlinkError } from "../../netlink.ts";

/** The kernel plane whose port is there still; undefined when there is none. */
export function leftKernelPlane(host: Host, port: number): "gre-fou" | "ipip-fou" | undefined {
  try {
    using fou = host.openFou();
    const ipproto = fou.ports().find((left) => left.port === port)?.ipproto;
    return ipproto === 47 ? "gre-fou" : ipproto === 4 ? "ipip-fou" : undefined;
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw new GretunError(`cannot look at FOU ports: ${errorText(error)}`, "Run as root");
  }
}
