/**
 * NAT-PMP messages (RFC 6886 section 3), big endian, UDP port 5351 of the gateway:
 *
 *     external address, request      mapping, request (UDP)
 *     0  1  version 0                0   1  version 0
 *     1  1  opcode 0                 1   1  opcode 1
 *                                    2   2  zero
 *                                    4   2  internal port
 *                                    6   2  suggested external port
 *                                    8   4  lifetime in s; 0 deletes
 *
 *     every answer                   of an address    of a mapping
 *     0  1  version 0                8  4  IPv4       8   2  internal port
 *     1  1  128 + opcode                              10  2  external port
 *     2  2  result                                    12  4  granted lifetime in s
 *     4  4  seconds since the gateway's tables were reset
 */
import { type Ip, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { PortMapFormatError } from "./errors.ts";

export const NATPMP_PORT = 5351;
const VERSION = 0;
const OP_ADDRESS = 0;
const OP_MAP_UDP = 1;
const ANSWER_BIT = 128;
const ERROR_LENGTH = 8;

/** Section 3.5. */
const RESULTS: Record<number, string> = {
  1: "unsupported version",
  2: "not authorized: switched off in the gateway",
  3: "network failure: the gateway has no usable address itself",
  4: "out of resources",
  5: "unsupported opcode",
};

export function natPmpResultText(result: number): string {
  return RESULTS[result] ?? `result ${result}`;
}

export function encodeAddressRequest(): Uint8Array<ArrayBuffer> {
  return new Writer("network", 2).u8(VERSION).u8(OP_ADDRESS).finish();
}

export interface NatPmpMap {
  internalPort: number;
  externalPort: number;
  lifetimeSeconds: number;
}

export function encodeMapRequest(map: NatPmpMap): Uint8Array<ArrayBuffer> {
  return new Writer("network", 12).u8(VERSION).u8(OP_MAP_UDP).u16(0)
    .u16(map.internalPort).u16(map.externalPort).u32(map.lifetimeSeconds).finish();
}

export type NatPmpAnswer =
  | { kind: "address"; epochSeconds: number; external: Ip }
  | { kind: "map"; epochSeconds: number } & NatPmpMap
  | { kind: "error"; to: "address" | "map"; epochSeconds: number; result: number };

/** Bytes after the message are ignored. Throws {@link PortMapFormatError} and nothing else. */
export function decodeNatPmpAnswer(bytes: Uint8Array): NatPmpAnswer {
  const op = (bytes[1] ?? 0) - ANSWER_BIT;
  if (bytes[0] !== VERSION || (op !== OP_ADDRESS && op !== OP_MAP_UDP)) {
    throw new PortMapFormatError("not an answer of NAT-PMP");
  }
  const result = bytes.length < ERROR_LENGTH ? 0 : new Reader(bytes, "network").skip(2).u16();
  // What follows the header of an error is undefined, and some leave it out.
  const wanted = result !== 0 ? ERROR_LENGTH : op === OP_ADDRESS ? 12 : 16;
  if (bytes.length < wanted) {
    throw new PortMapFormatError(`NAT-PMP answer of ${bytes.length} bytes: want ${wanted}`);
  }
  const reader = new Reader(bytes, "network").skip(4);
  const epochSeconds = reader.u32();
  const to = op === OP_ADDRESS ? "address" : "map";
  if (result !== 0) return { kind: "error", to, epochSeconds, result };
  if (to === "address") {
    return { kind: to, epochSeconds, external: ipFromBytes(reader.bytes(4)) };
  }
  const [internalPort, externalPort] = [reader.u16(), reader.u16()];
  return { kind: to, epochSeconds, internalPort, externalPort, lifetimeSeconds: reader.u32() };
}
