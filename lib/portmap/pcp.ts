/**
 * PCP messages (RFC 6887 sections 7, 11 and 14.1), big endian, UDP port 5351 of the gateway:
 *
 *     request                        answer
 *     0   1   version 2              0   1   version 2
 *     1   1   opcode                 1   1   128 + opcode
 *     2   2   zero                   2   1   zero
 *                                    3   1   result
 *     4   4   lifetime in s          4   4   granted lifetime in s
 *     8   16  client's address       8   4   epoch time in s
 *                                    12  12  zero
 *
 *     MAP, both ways
 *     24  12  mapping nonce
 *     36  1   protocol
 *     37  3   zero
 *     40  2   internal port
 *     42  2   external port: suggested, or assigned
 *     44  16  external address: suggested, or assigned
 *
 * ANNOUNCE is the header alone. Addresses are IPv6, or IPv4-mapped. Options may follow; none is
 * sent, and those of answers are ignored.
 */
import { type Endpoint, type Ip, ipBytes16, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { PortMapFormatError } from "./errors.ts";

export const PCP_PORT = 5351;
export const NONCE_LENGTH = 12;
const VERSION = 2;
const OP_ANNOUNCE = 0;
const OP_MAP = 1;
const ANSWER_BIT = 128;
const HEADER_LENGTH = 24;
const MAP_LENGTH = 60;
const MAX_LENGTH = 1100;
const IPPROTO_UDP = 17;
const UNSUPP_VERSION = 1;

/** Section 7.4. */
const RESULTS: Record<number, string> = {
  1: "unsupported version",
  2: "not authorized: switched off in the gateway, or another host's mapping",
  3: "malformed request",
  4: "unsupported opcode",
  5: "unsupported option",
  6: "malformed option",
  7: "network failure: the gateway has no usable address itself",
  8: "out of resources",
  9: "unsupported protocol",
  10: "the quota of this host is used up",
  11: "cannot provide the external port",
  12: "address mismatch: another NAT is between this host and the gateway",
  13: "too many remote peers",
};

export function pcpResultText(result: number): string {
  return RESULTS[result] ?? `result ${result}`;
}

function header(opcode: number, lifetimeSeconds: number, client: Ip): Writer {
  return new Writer("network", MAP_LENGTH)
    .u8(VERSION).u8(opcode).u16(0).u32(lifetimeSeconds).bytes(ipBytes16(client));
}

/** `client`: the source address of the packet. */
export function encodeAnnounce(client: Ip): Uint8Array<ArrayBuffer> {
  return header(OP_ANNOUNCE, 0, client).finish();
}

/** A mapping of UDP. */
export interface PcpMap {
  nonce: Uint8Array;
  internalPort: number;
  /** All zero of the right family: any. */
  external: Endpoint;
  /** 0 deletes. */
  lifetimeSeconds: number;
}

/** `client`: the source address of the packet. */
export function encodePcpMap(client: Ip, map: PcpMap): Uint8Array<ArrayBuffer> {
  if (map.nonce.length !== NONCE_LENGTH) {
    throw new RangeError(`mapping nonce is ${map.nonce.length} bytes: want ${NONCE_LENGTH}`);
  }
  return header(OP_MAP, map.lifetimeSeconds, client)
    .bytes(map.nonce).u8(IPPROTO_UDP).zeros(3)
    .u16(map.internalPort).u16(map.external.port).bytes(ipBytes16(map.external.ip)).finish();
}

export type PcpAnswer =
  /** A gateway with NAT-PMP alone, or with another version of PCP. */
  | { kind: "other-version" }
  | { kind: "announce"; result: number; epochSeconds: number }
  /** An error may come without what was asked for. */
  | { kind: "map"; result: number; epochSeconds: number; map: PcpMap | undefined };

/** Throws {@link PortMapFormatError} and nothing else. */
export function decodePcpAnswer(bytes: Uint8Array): PcpAnswer {
  if (isOtherVersion(bytes)) return { kind: "other-version" };
  checkFrame(bytes);
  const reader = new Reader(bytes, "network").skip(1);
  const opcode = reader.u8() - ANSWER_BIT;
  const result = reader.skip(1).u8();
  const lifetimeSeconds = reader.u32();
  const epochSeconds = reader.u32();
  if (opcode === OP_ANNOUNCE) return { kind: "announce", result, epochSeconds };
  if (opcode !== OP_MAP) throw new PortMapFormatError(`PCP answer to opcode ${opcode}`);
  const map = bytes.length < MAP_LENGTH
    ? undefined
    : decodeMap(reader.skip(HEADER_LENGTH - reader.offset), lifetimeSeconds);
  if (!map && result === 0) throw new PortMapFormatError("PCP answer without the mapping");
  return { kind: "map", result, epochSeconds, map };
}

/** Both NAT-PMP's result (section 9 of RFC 6887) and that of all versions of PCP end in byte 3. */
function isOtherVersion(bytes: Uint8Array): boolean {
  return bytes.length >= 8 && bytes[0] !== VERSION && bytes[1]! >= ANSWER_BIT &&
    bytes[3] === UNSUPP_VERSION;
}

/** Section 8.3: what is too short, too long, or no multiple of 4 is ignored. */
function checkFrame(bytes: Uint8Array): void {
  const { length } = bytes;
  if (length < HEADER_LENGTH || length > MAX_LENGTH || length % 4 !== 0) {
    throw new PortMapFormatError(`PCP answer of ${length} bytes`);
  }
  if (bytes[0] !== VERSION || bytes[1]! < ANSWER_BIT) {
    throw new PortMapFormatError("not an answer of PCP");
  }
}

function decodeMap(reader: Reader, lifetimeSeconds: number): PcpMap {
  const nonce = reader.bytes(NONCE_LENGTH);
  const protocol = reader.u8();
  if (protocol !== IPPROTO_UDP) throw new PortMapFormatError(`PCP answer for protocol ${protocol}`);
  const internalPort = reader.skip(3).u16();
  const port = reader.u16();
  const ip = ipFromBytes(reader.bytes(16));
  return { nonce, internalPort, external: { ip, port }, lifetimeSeconds };
}
