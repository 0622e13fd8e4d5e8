/**
 * Whether the other end of a tunnel answers: probes by ICMP, TCP and HTTP, and the health of all
 * tunnels of this host.
 *
 * @example
 * await using poller = new Poller();
 * const open = icmpSockets({ poller });
 * const options = { count: 3, intervalMs: 100, timeoutMs: 2000, open, clock, random };
 * const { received, rtt } = statistics(await ping(parseIp("10.0.0.2"), options));
 */
export {
  type Connect,
  type Connection,
  httpAttempt,
  type HttpGet,
  tcpAttempt,
} from "./application.ts";
export { icmpSockets, type OpenEchoSocket, ping, type PingOptions } from "./ping.ts";
export {
  type Attempt,
  type ProbeOptions,
  type ProbeResult,
  runProbes,
  type Statistics,
  statistics,
} from "./probes.ts";
export {
  checkTunnels,
  type PingThrough,
  type Targets,
  type TunnelHealth,
  tunnelTargets,
} from "./tunnels.ts";
