/** Addresses of inner IP packets. */
import { type Cidr, cidrContains, type Ip, ipFromBytes, isMulticast } from "../../addr.ts";

const IPV4_HEADER_LENGTH = 20;
const IPV6_HEADER_LENGTH = 40;

export function isIpPacket(packet: Uint8Array): boolean {
  const version = (packet[0] ?? 0) >> 4;
  return version === 4 && packet.length >= IPV4_HEADER_LENGTH ||
    version === 6 && packet.length >= IPV6_HEADER_LENGTH;
}

/** fe80::/10 and :: speak on the link only. */
function isLinkScope(ip: Ip): boolean {
  return /^fe[89ab]/.test(ip) || ip === "::";
}

/**
 * Which sources a client's packets may have: its addresses and routes, and link-local ones, which
 * routing daemons use. Remembers the last good source, as packets come in runs.
 */
export class SourceFilter {
  readonly #allowed: readonly Cidr[];
  #last = new Uint8Array();

  constructor(allowed: readonly Cidr[]) {
    this.#allowed = allowed;
  }

  allows(packet: Uint8Array): boolean {
    const source = packet[0]! >> 4 === 4 ? packet.subarray(12, 16) : packet.subarray(8, 24);
    if (this.#isLast(source)) return true;
    const ip = ipFromBytes(source);
    if (isMulticast(ip)) return false;
    if (!isLinkScope(ip) && !this.#allowed.some((cidr) => cidrContains(cidr, ip))) return false;
    this.#last = source.slice();
    return true;
  }

  #isLast(source: Uint8Array): boolean {
    const last = this.#last;
    if (last.length !== source.length) return false;
    for (let i = 0; i < last.length; i++) if (last[i] !== source[i]) return false;
    return true;
  }
}
