/** `gretun netcheck`: what this host's network lets through, and what that means for its peers. */
import { formatEndpoint } from "../../addr.ts";
import { parseCoordinatorUrl } from "../../coord/client.ts";
import { systemDialer } from "../../dial/mod.ts";
import { InterruptedError } from "../../errors.ts";
import {
  checkNetwork,
  externalIpOf,
  type FamilyReport,
  hasWayOut,
  isDoubleNat,
  isPublicIp,
  meaningOf,
  type NetReport,
  type PortMapReport,
  reachOf,
} from "../../netcheck/mod.ts";
import { PROTOCOL_NAMES, PROTOCOLS } from "../../portmap/mod.ts";
import { parseServerName } from "../../stun/mod.ts";
import { type Command, type CommandIo, EXIT_FAILURE, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags, withPositional } from "../flags.ts";
import { DEFAULT_STUN_SERVERS } from "./stun.ts";
import { formatTable, printable } from "../table.ts";

const FLAGS = {
  coordinator: flag.text("URL", "tries to reach it by TCP, and asks its STUN servers"),
  "stun-server": flag.list(
    "HOST:PORT",
    "STUN servers, repeatable (default the coordinator's, else those of gretun stun)",
  ),
  ca: flag.text(
    "FILE",
    "trust these certificates (PEM) too: the coordinator's own, or its issuer's",
  ),
  port: flag.integer("PORT", "local UDP port to ask from over IPv4 (default a free one)", {
    min: 1,
    max: 65535,
  }),
  timeout: flag.duration("TIME", "for all of it", { min: 1, max: 600_000, default: 10_000 }),
  json: flag.on("JSON on standard output"),
} as const;

const NOTE =
  `Mapping and filtering are in the words of RFC 4787. A server tells how the NAT filters if it
answers from another port or address when it is asked to (RFC 5780), as a coordinator does. The port
of a running gretun up is taken: another one is asked from. Exit code 1 when nothing gets out.
`;

export const command: Command = {
  summary: "check what this host's network lets through",
  help: () => `Usage: gretun netcheck [flags]\n\n${flagsHelp(FLAGS)}\n\n${NOTE}`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(withPositional(args, "coordinator", FLAGS), FLAGS);
  const coordinator = flags.coordinator === undefined
    ? undefined
    : parseCoordinatorUrl(flags.coordinator);
  for (const name of flags["stun-server"]) parseServerName(name);
  try {
    const report = await checkNetwork({
      serverNames: flags["stun-server"],
      fallbackNames: DEFAULT_STUN_SERVERS,
      ...(coordinator ? { coordinator } : {}),
      ...(flags.ca === undefined ? {} : { dialer: systemDialer({ caFile: flags.ca }) }),
      ...(flags.port === undefined ? {} : { port: flags.port }),
      timeoutMs: flags.timeout,
      signal: io.signal,
    });
    io.stdout(flags.json ? formatJson(report) : formatText(report));
    return hasWayOut(report) ? EXIT_OK : EXIT_FAILURE;
  } catch (error) {
    if (io.signal.aborted) throw new InterruptedError("interrupted", "Run it again to check anew");
    throw error;
  }
}

// --- for people

function formatText(report: NetReport): string {
  const rows = rowsOf(report).filter((row): row is [string, string] => row[1] !== undefined);
  const width = Math.max(...rows.map(([label]) => label.length)) + 2;
  const lines = rows.map(([label, text]) => label.padEnd(width) + printable(text) + "\n").join("");
  return `${lines}\n${serverTable(report)}\n${meaningOf(report)}\n`;
}

function rowsOf(report: NetReport): [string, string | undefined][] {
  const { ipv4, ipv6, hairpins, portMap } = report;
  const double = isDoubleNat(report);
  return [
    ["UDP", udpText(report)],
    ["IPv4", ipv4 ? addressText(ipv4) : "none"],
    ...behaviourRows("IPv4", ipv4),
    ["IPv6", ipv6 ? addressText(ipv6) : "none"],
    ...behaviourRows("IPv6", ipv6),
    ["Hairpinning", hairpins === undefined ? undefined : hairpins ? "yes" : "no"],
    ["Port mapping", portMap ? portMapText(portMap) : "no router"],
    ["Double NAT", double === undefined ? undefined : double ? doubleNatText(portMap!) : "no"],
    ["Coordinator", coordinatorText(report)],
  ];
}

function udpText({ ipv4, ipv6, servers }: NetReport): string {
  if (ipv4 || ipv6) return "works";
  return servers.some(({ endpoint }) => endpoint)
    ? "blocked: no STUN server answers"
    : "not tried: no STUN server's name resolves";
}

function addressText({ mapped, isTranslated, localPort }: FamilyReport): string {
  const how = isTranslated ? `translated from port ${localPort}` : "not translated";
  return `${formatEndpoint(mapped)}, ${how}`;
}

function behaviourRows(family: string, report?: FamilyReport): [string, string | undefined][] {
  const { server, pathMtu, routeMtu } = report?.narrowPath ?? {};
  return [
    [`${family} mapping`, report?.mapping],
    [`${family} filtering`, report?.filtering],
    [
      `${family} path MTU`,
      pathMtu === undefined ? undefined : `${pathMtu} to ${server}, the route says ${routeMtu}`,
    ],
  ];
}

function portMapText(portMap: PortMapReport): string {
  const found = PROTOCOLS.filter((protocol) => portMap.protocols[protocol].answers)
    .map((protocol) => PROTOCOL_NAMES[protocol]);
  if (found.length === 0) return `none found at ${portMap.gateway}`;
  const external = externalIpOf(portMap);
  const address = external === undefined
    ? "which does not tell its external address"
    : `external address ${external} (${isPublicIp(external) ? "public" : "not public"})`;
  return `${found.join(", ")} at ${portMap.gateway}, ${address}`;
}

function doubleNatText(portMap: PortMapReport): string {
  return isPublicIp(externalIpOf(portMap)!)
    ? "likely: this host is seen at another address than the router's"
    : "yes: the router's external address is not public";
}

function coordinatorText({ coordinator }: NetReport): string | undefined {
  if (!coordinator) return undefined;
  const { url, rttMs, error } = coordinator;
  return rttMs === undefined ? error : `${url} answers in ${formatMs(rttMs)}`;
}

function serverTable({ servers }: NetReport): string {
  const rows = servers.map(({ name, endpoint, rttMs }) => [
    name,
    endpoint ? formatEndpoint(endpoint) : "-",
    rttMs !== undefined ? formatMs(rttMs) : endpoint ? "no answer" : "does not resolve",
  ]);
  return formatTable(["STUN SERVER", "ADDRESS", "LATENCY"], rows);
}

const formatMs = (ms: number) => `${ms.toFixed(1)} ms`;

// --- for programs

function formatJson(report: NetReport): string {
  const { ipv4, ipv6, hairpins, portMap, coordinator, servers } = report;
  const json = {
    udp: ipv4 !== undefined || ipv6 !== undefined,
    ipv4: ipv4 ? familyJson(ipv4) : null,
    ipv6: ipv6 ? familyJson(ipv6) : null,
    hairpinning: hairpins ?? null,
    port_mapping: portMap ? portMapJson(portMap) : null,
    double_nat: isDoubleNat(report) ?? null,
    coordinator: coordinator
      ? {
        url: coordinator.url,
        reachable: coordinator.rttMs !== undefined,
        latency_ms: msJson(coordinator.rttMs),
        error: coordinator.error ?? null,
      }
      : null,
    stun_servers: servers.map(({ name, endpoint, rttMs }) => ({
      name,
      addr: endpoint ? formatEndpoint(endpoint) : null,
      latency_ms: msJson(rttMs),
    })),
    reach: reachOf(report),
    meaning: meaningOf(report),
  };
  return JSON.stringify(json, null, 2) + "\n";
}

function familyJson(
  { mapped, localPort, isTranslated, mapping, filtering, narrowPath }: FamilyReport,
) {
  return {
    addr: formatEndpoint(mapped),
    local_port: localPort,
    nat: isTranslated,
    mapping,
    filtering,
    narrow_path: narrowPath
      ? {
        stun_server: narrowPath.server,
        path_mtu: narrowPath.pathMtu,
        route_mtu: narrowPath.routeMtu,
      }
      : null,
  };
}

function portMapJson(portMap: PortMapReport) {
  const external = externalIpOf(portMap);
  const protocols = PROTOCOLS.map((protocol) => {
    const probe = portMap.protocols[protocol];
    return [protocol, probe.answers ? { answers: true } : { answers: false, why: probe.why }];
  });
  return {
    gateway: portMap.gateway,
    external_ip: external ?? null,
    external_ip_public: external === undefined ? null : isPublicIp(external),
    protocols: Object.fromEntries(protocols),
  };
}

const msJson = (ms: number | undefined) => ms === undefined ? null : Math.round(ms * 10) / 10;
