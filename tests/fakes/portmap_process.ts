/**
 * A host that has a port mapped, as a program: HTTP leaves from the network namespace that a
 * process was started in. Arguments: protocols (as "pcp,upnp"), internal port, lifetime in s and
 * ms between checks; or "probe". Prints a line of JSON for each event, and ends with its stdin.
 */
import { formatEndpoint } from "../../lib/addr.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import {
  findGateway,
  mapPort,
  NoPortMappingError,
  type PortMapProtocol,
  probePortMapping,
} from "../../lib/portmap/mod.ts";

const print = (event: Record<string, unknown>) => console.log(JSON.stringify(event));

async function keep(
  [protocols, internalPort, lifetime, checkMs]: readonly string[],
): Promise<void> {
  await using mapping = await mapPort({
    ...way,
    internalPort: Number(internalPort),
    lifetimeSeconds: Number(lifetime),
    ...(checkMs ? { checkMs: Number(checkMs) } : {}),
    protocols: protocols!.split(",") as PortMapProtocol[],
    onChange: (external) =>
      print({ event: "changed", external: external ? formatEndpoint(external) : null }),
  });
  const { protocol, external, isPublic, lifetimeSeconds } = mapping;
  const endpoint = formatEndpoint(external!);
  print({ event: "mapped", protocol, external: endpoint, isPublic, lifetimeSeconds });
  await Deno.stdin.read(new Uint8Array(1)); // until it is told to end
}

using rtnl = RtNetlink.open();
const way = findGateway(rtnl)!;
const startMs = performance.now();
try {
  if (Deno.args[0] === "probe") print({ event: "probed", ...way, ...await probePortMapping(way) });
  else await keep(Deno.args);
  print({ event: "ended" });
} catch (error) {
  if (!(error instanceof NoPortMappingError)) throw error;
  print({ event: "none", reasons: error.reasons, elapsedMs: performance.now() - startMs });
}
