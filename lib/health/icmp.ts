/**
 * ICMP and ICMPv6 echo messages (RFC 792; RFC 4443 section 4), which are laid out alike.
 *
 *     0    type: 8 echo, 0 echo reply; ICMPv6: 128, 129
 *     1    code: 0
 *     2-3  checksum; over the whole message, in ICMPv6 over a pseudo-header too
 *     4-5  identifier
 *     6-7  sequence number
 *     8-   data, which the reply repeats
 */
import type { Family } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { onesComplementSum } from "../checksum.ts";
import type { IcmpError } from "../linux/mod.ts";

const ECHO = { 4: 8, 6: 128 } as const;
const ECHO_REPLY = { 4: 0, 6: 129 } as const;
const HEADER_LENGTH = 8;

export interface Echo {
  /** 16 bits, as is the sequence number. */
  identifier: number;
  sequence: number;
  data: Uint8Array;
}

/** The checksum of ICMPv6 is left to the kernel, which alone knows the source address. */
export function encodeEcho(family: Family, echo: Echo): Uint8Array<ArrayBuffer> {
  const { identifier, sequence, data } = echo;
  const message = (checksum: number) =>
    new Writer("network", HEADER_LENGTH + data.length)
      .u8(ECHO[family]).u8(0).u16(checksum).u16(identifier).u16(sequence).bytes(data).finish();
  return family === 6 ? message(0) : message(~onesComplementSum(message(0)) & 0xffff);
}

/** Of an echo that an error message quotes, which may end early: undefined for what is none. */
export function decodeQuotedEcho(family: Family, message: Uint8Array): Echo | undefined {
  if (message.length < HEADER_LENGTH) return undefined;
  const reader = new Reader(message, "network");
  if (reader.u8() !== ECHO[family] || reader.u8() !== 0) return undefined;
  reader.skip(2);
  return { identifier: reader.u16(), sequence: reader.u16(), data: reader.bytes() };
}

/** What an error message says of the echo, in a user's words; types and codes by IANA's lists. */
export function icmpErrorText(family: Family, { type, code }: IcmpError): string {
  const known = family === 4 ? ERRORS_4 : ERRORS_6;
  return known[`${type}/${code}`] ?? known[type] ?? `ICMP type ${type}, code ${code}`;
}

const PROHIBITED = "a firewall prohibits it";
const TOO_LARGE = "the message is larger than the path takes";
const TTL_EXCEEDED = "too many hops: routers may send it in a circle";
const ERRORS_4: Record<string, string> = {
  "3/0": "no route to its network",
  "3/1": "host unreachable",
  "3/2": "the host takes no ICMP",
  "3/4": TOO_LARGE,
  "3/9": PROHIBITED,
  "3/10": PROHIBITED,
  "3/13": PROHIBITED,
  3: "unreachable",
  11: TTL_EXCEEDED,
};
const ERRORS_6: Record<string, string> = {
  "1/0": "no route to it",
  "1/1": PROHIBITED,
  "1/3": "host unreachable",
  "1/5": PROHIBITED,
  "1/6": PROHIBITED,
  1: "unreachable",
  2: TOO_LARGE,
  3: TTL_EXCEEDED,
};

/** Undefined for what is not a whole echo reply. The kernel has checked the sum of ICMPv6. */
export function decodeEchoReply(family: Family, message: Uint8Array): Echo | undefined {
  if (message.length < HEADER_LENGTH) return undefined;
  if (family === 4 && onesComplementSum(message) !== 0xffff) return undefined;
  const reader = new Reader(message, "network");
  if (reader.u8() !== ECHO_REPLY[family] || reader.u8() !== 0) return undefined;
  reader.skip(2);
  return { identifier: reader.u16(), sequence: reader.u16(), data: reader.bytes() };
}
