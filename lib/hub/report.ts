/** What `gretun hub status` shows. */
import { formatCidr, formatEndpoint } from "../addr.ts";
import type { LinkCounters } from "../links/mod.ts";
import type { ClientReport, HubReport, SpokeReport } from "./control.ts";
import type { HubEntry, HubOptions, HubProtocol } from "./hub_core.ts";

export function hubReport(
  { options, protocol, entries, problems, pidOf, nowMs }: {
    options: HubOptions;
    protocol: HubProtocol;
    entries: Iterable<HubEntry>;
    problems: string[];
    pidOf: (name: string) => number | undefined;
    nowMs: number;
  },
): HubReport {
  const { plane, publicKey } = protocol;
  const counters = plane.counters();
  return {
    ...{ role: "hub", protocol: options.protocol, data_plane: plane.kind, port: options.port },
    ...(publicKey ? { public_key: publicKey } : {}),
    ...(plane.kind === "tun" && options.protocol === "gretun" ? { encrypt: options.encrypt } : {}),
    refused: options.metrics.refusals,
    problems,
    clients: [...entries].map((entry) => {
      const { name } = entry.file;
      return clientReport(entry, { stats: counters.get(name), pid: pidOf(name), nowMs });
    }),
  };
}

/** "2 of 3 clients connected, UDP port 7788". */
export function hubLine({ clients, problems, port }: HubReport): string {
  const up = clients.filter(({ state }) => state === "up").length;
  const refused = problems.length > 0 ? `, ${problems.length} files refused` : "";
  return `${up} of ${clients.length} clients connected${refused}, UDP port ${port}`;
}

/** "up: hub 203.0.113.1:7788, address 10.90.0.2". */
export function spokeLine({ state, hub, address }: SpokeReport): string {
  return `${state}: hub ${hub}${address ? `, address ${address}` : ""}`;
}

function clientReport(
  { file, link, policy, authentications, roams }: HubEntry,
  { stats, pid, nowMs }: {
    stats: LinkCounters | undefined;
    pid: number | undefined;
    nowMs: number;
  },
): ClientReport {
  const heardS = Math.round((nowMs - policy.heardMs) / 100) / 10;
  return {
    name: file.name,
    state: link ? "up" : "down",
    ...(policy.endpoint ? { endpoint: formatEndpoint(policy.endpoint) } : {}),
    ...(file.address ? { address: file.address.ip } : {}),
    ...(file.routes.length > 0 ? { routes: file.routes.map(formatCidr) } : {}),
    ...(link ? { ifname: link.ifname, mtu: link.mtu, heard_s: heardS } : {}),
    authentications,
    roams,
    ...(pid === undefined ? {} : { pid }),
    ...(stats
      ? {
        ...{ rx_packets: stats.rxPackets, tx_packets: stats.txPackets },
        ...{ rx_bytes: stats.rxBytes, tx_bytes: stats.txBytes },
      }
      : {}),
  };
}
