/**
 * What a gateway says unasked when it has started again or has another address: to all hosts of
 * the network, by NAT-PMP (RFC 6886 section 3.2.1) and by PCP (RFC 6887 section 14.1.3).
 */
import { type Endpoint, equalEndpoints, type Ip, parseIp } from "../addr.ts";
import type { Clock, Datagram } from "../edges.ts";
import { PortMapFormatError } from "./errors.ts";
import { decodeNatPmpAnswer, NATPMP_PORT } from "./natpmp.ts";
import type { PortMapNet } from "./net.ts";
import { decodePcpAnswer } from "./pcp.ts";

/** All hosts of the link, a group that every host is in. */
export const ANNOUNCEMENTS: Endpoint = { ip: parseIp("224.0.0.1"), port: 5350 };
/** One announcement is sent up to ten times, and anybody on the link could send more. */
const PAUSE_MS = 5000;

/** Calls `onAnnouncement` at most every 5 s, until the signal is aborted. */
export async function hearAnnouncements(
  { net, clock, gateway }: { net: PortMapNet; clock: Clock; gateway: Ip },
  onAnnouncement: () => void,
  signal: AbortSignal,
): Promise<void> {
  const socket = net.openMulticast(ANNOUNCEMENTS);
  if (!socket) return;
  signal.addEventListener("abort", () => socket[Symbol.dispose](), { once: true });
  let quietUntilMs = -Infinity;
  while (!signal.aborted) {
    const datagram = await socket.receive();
    if (!datagram) return;
    if (clock.nowMs() < quietUntilMs || !isAnnouncement(datagram, gateway)) continue;
    quietUntilMs = clock.nowMs() + PAUSE_MS;
    onAnnouncement();
  }
}

/** Both protocols have the same port. */
function isAnnouncement({ bytes, from }: Datagram, gateway: Ip): boolean {
  if (!equalEndpoints(from, { ip: gateway, port: NATPMP_PORT })) return false;
  try {
    const { kind } = bytes[0] === 0 ? decodeNatPmpAnswer(bytes) : decodePcpAnswer(bytes);
    return kind === "address" || kind === "announce";
  } catch (error) {
    if (error instanceof PortMapFormatError) return false;
    throw error;
  }
}
