/** The way through IPv6's extension headers (RFC 8200 section 4). */

const FIRST_NEXT_HEADER = 6;
const HEADER_LENGTH = 40;
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION_OPTIONS = 60;
/** The least that an extension header has. */
const UNIT = 8;
const FRAGMENT_OFFSET = 0xfff8;

/**
 * Where the header of that protocol begins, from the packet's own start, which is at `at`; -1: it is
 * another one's, a later fragment, or beyond `length`.
 */
export function ipv6TransportAt(
  bytes: Uint8Array,
  at: number,
  length: number,
  protocol: number,
): number {
  let next = bytes[at + FIRST_NEXT_HEADER]!;
  let offset = HEADER_LENGTH;
  while (next !== protocol) {
    const header = at + offset;
    if (offset + UNIT > length) return -1;
    if (next === FRAGMENT) {
      const place = bytes[header + 2]! << 8 | bytes[header + 3]!;
      if ((place & FRAGMENT_OFFSET) !== 0) return -1;
      offset += UNIT;
    } else if (next === AUTHENTICATION) offset += 4 * (2 + bytes[header + 1]!);
    else if (next === HOP_BY_HOP || next === ROUTING || next === DESTINATION_OPTIONS) {
      offset += UNIT * (1 + bytes[header + 1]!);
    } else return -1;
    next = bytes[header]!;
  }
  return offset;
}
