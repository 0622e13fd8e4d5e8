/** Offsets and bits of the headers that the data path reads and writes. */

export const IPV4_HEADER = 20;
export const IPV6_HEADER = 40;
export const UDP_HEADER = 8;
export const TCP_HEADER = 20;
export const TCP = 6;
export const UDP = 17;
export const ICMP = 1;
export const ICMPV6 = 58;

/** From the IPv4 header (RFC 791). */
export const IPV4 = {
  tos: 1,
  totalLength: 2,
  id: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
} as const;
export const DONT_FRAGMENT = 0x4000;

/** From the IPv6 header (RFC 8200). */
export const IPV6 = {
  payloadLength: 4,
  nextHeader: 6,
  hopLimit: 7,
  source: 8,
  destination: 24,
} as const;

/** From the TCP header (RFC 9293). */
export const TCP_FIELD = {
  sequence: 4,
  acknowledgement: 8,
  /** Data offset and flags. */
  flags: 12,
  window: 14,
  checksum: 16,
  urgent: 18,
} as const;
export const TCP_FLAG = {
  fin: 0x01,
  psh: 0x08,
  ack: 0x10,
  urg: 0x20,
  ece: 0x40,
  cwr: 0x80,
} as const;

/** From the UDP header (RFC 768). */
export const UDP_FIELD = { length: 4, checksum: 6 } as const;

/**
 * `struct virtio_net_hdr` before each packet of a TUN device (linux/virtio_net.h), host order:
 *
 *     0    flags
 *     1    GSO type
 *     2-3  length of all headers
 *     4-5  bytes of payload in each segment
 *     6-7  where the checksum begins, from the packet's start
 *     8-9  where it is written, from there
 */
export const VNET_HEADER = 10;
export const VNET = {
  flags: 0,
  gsoType: 1,
  headerLength: 2,
  gsoSize: 4,
  start: 6,
  offset: 8,
} as const;
export const NEEDS_CSUM = 1;
export const GSO = { none: 0, tcp4: 1, tcp6: 4, udp: 5, ecn: 0x80 } as const;

/** Of an IP packet, by its first byte; 0 for what is none or shorter than its header. */
export function versionOf(bytes: Uint8Array, at: number, length: number): 0 | 4 | 6 {
  const version = bytes[at]! >> 4;
  if (version === 4 && length >= IPV4_HEADER) return 4;
  if (version === 6 && length >= IPV6_HEADER) return 6;
  return 0;
}

export function isIpPacket(packet: Uint8Array): boolean {
  return versionOf(packet, 0, packet.length) !== 0;
}
