/**
 * Classic BPF filters (linux/filter.h, linux/bpf_common.h) that tell signalling from data on one
 * UDP port, so that each goes to the socket that is for it and to no other.
 */
import type { Family } from "../addr.ts";
import { Writer } from "../bytes.ts";
import { setOption, SOL_SOCKET } from "./libc.ts";

const SO_ATTACH_FILTER = 26;
const UDP_HEADER = 8;
const IPV4_HEADER = 20;

const LDX_MSH = 0xb1; // X = 4 * (packet[k] & 0xf): the length of the IP header
const LDX_IMM = 0x01; // X = k
const LDX_MEM = 0x61; // X = M[k]
const LD_B_IND = 0x50; // A = u8 at X + k
const LD_H_IND = 0x48; // A = u16 at X + k
const LD_W_IND = 0x40; // A = u32 at X + k
const ST = 0x02; // M[k] = A
const ADD_K = 0x04;
const AND_K = 0x54;
const JEQ_K = 0x15;
const JEQ_X = 0x1d;
const JGE_K = 0x35;
const RET = 0x06;

const LOAD = { 1: LD_B_IND, 2: LD_H_IND, 4: LD_W_IND } as const;
/** Stands for the jump out of a block, which is as long as the block is. */
const MISS = -1;
const UDP_LENGTH_OFFSET = 4;

const ACCEPT = 0xffff;
const DROP = 0;

/** u16 code, u8 jump if true, u8 if false, u32 k. */
type Instruction = readonly [code: number, jt: number, jf: number, k: number];

/** Bytes of a UDP payload; with a mask, as long as they are, only its bits. */
export interface BytePattern {
  offset: number;
  bytes: Uint8Array;
  mask?: Uint8Array;
}

/**
 * What is no data: a payload with any of these patterns, or all but IPv4 packets that say their own
 * length.
 */
export type Signalling =
  | { kind: "patterns"; any: readonly BytePattern[] }
  | { kind: "not-ipv4" };

/** Of a payload, as the filters below tell it. */
export function isSignalling(signalling: Signalling, payload: Uint8Array): boolean {
  switch (signalling.kind) {
    case "patterns":
      return signalling.any.some((pattern) => matches(pattern, payload));
    case "not-ipv4":
      return payload.length < IPV4_HEADER || payload[0]! >> 4 !== 4 ||
        (payload[2]! << 8 | payload[3]!) !== payload.length;
    default:
      return signalling satisfies never;
  }
}

function matches({ offset, bytes, mask }: BytePattern, payload: Uint8Array): boolean {
  if (payload.length < offset + bytes.length) return false;
  return bytes.every((byte, i) => ((payload[offset + i]! ^ byte) & (mask?.[i] ?? 0xff)) === 0);
}

/** Nothing passes: for a socket that only sends. */
export const DEAF_FILTER = assemble([[RET, 0, 0, DROP]]);

/** For a raw socket, which sees the header of IPv4 but not of IPv6: signalling to `port` only. */
export function signallingFilter(
  signalling: Signalling,
  port: number,
  family: Family = 4,
): Uint8Array<ArrayBuffer> {
  const rest = tell(signalling, [RET, 0, 0, ACCEPT], [RET, 0, 0, DROP]);
  return assemble([
    [family === 4 ? LDX_MSH : LDX_IMM, 0, 0, 0],
    [LD_H_IND, 0, 0, 2],
    [JEQ_K, 1, 0, port],
    [RET, 0, 0, DROP],
    ...rest,
  ]);
}

/** For a UDP socket, which sees the UDP header first: all but signalling. */
export function dataFilter(signalling: Signalling): Uint8Array<ArrayBuffer> {
  return assemble([
    [LDX_IMM, 0, 0, 0],
    ...tell(signalling, [RET, 0, 0, DROP], [RET, 0, 0, 0xffffffff]),
  ]);
}

/** X is where the UDP header begins. A load past the end drops the packet. */
function tell(signalling: Signalling, yes: Instruction, no: Instruction): Instruction[] {
  switch (signalling.kind) {
    case "patterns":
      return [...signalling.any.flatMap((pattern) => hasPattern(pattern, yes)), no];
    case "not-ipv4":
      return isNotIpv4(yes, no);
    default:
      return signalling satisfies never;
  }
}

/** Ends with `yes`, or goes on behind it. */
function hasPattern({ offset, bytes, mask }: BytePattern, yes: Instruction): Instruction[] {
  const start = UDP_HEADER + offset;
  const block: Instruction[] = [
    [LD_H_IND, 0, 0, UDP_LENGTH_OFFSET],
    [JGE_K, 0, MISS, start + bytes.length],
  ];
  for (let at = 0; at < bytes.length;) {
    const width = bytes.length - at >= 4 ? 4 : bytes.length - at >= 2 ? 2 : 1;
    const bits = mask ? numberAt(mask, at, width) : 2 ** (8 * width) - 1;
    block.push(
      [LOAD[width], 0, 0, start + at],
      [AND_K, 0, 0, bits],
      [JEQ_K, 0, MISS, (numberAt(bytes, at, width) & bits) >>> 0],
    );
    at += width;
  }
  block.push(yes);
  return block.map((
    [code, jt, jf, k],
    i,
  ) => [code, jt, jf === MISS ? block.length - 1 - i : jf, k]);
}

/** In network order. */
function numberAt(bytes: Uint8Array, offset: number, width: number): number {
  return bytes.subarray(offset, offset + width).reduce((number, byte) => number * 256 + byte, 0);
}

function isNotIpv4(yes: Instruction, no: Instruction): Instruction[] {
  return [
    [LD_H_IND, 0, 0, UDP_LENGTH_OFFSET],
    [ST, 0, 0, 0],
    [JGE_K, 0, 7, UDP_HEADER + IPV4_HEADER], // shorter than an IPv4 header: signalling
    [LD_B_IND, 0, 0, UDP_HEADER],
    [AND_K, 0, 0, 0xf0],
    [JEQ_K, 0, 4, 0x40],
    [LD_H_IND, 0, 0, UDP_HEADER + 2], // IPv4's total length
    [ADD_K, 0, 0, UDP_HEADER],
    [LDX_MEM, 0, 0, 0],
    [JEQ_X, 1, 0, 0],
    yes,
    no,
  ];
}

function assemble(program: readonly Instruction[]): Uint8Array<ArrayBuffer> {
  const writer = new Writer("host", program.length * 8);
  for (const [code, jt, jf, k] of program) writer.u16(code).u8(jt).u8(jf).u32(k);
  return writer.finish();
}

export function attachFilter(fd: number, program: Uint8Array<ArrayBuffer>): void {
  const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(program)));
  // struct sock_fprog: u16 length, padding, pointer
  const fprog = new Writer("host").u16(program.length / 8).zeros(6).u64(address).finish();
  setOption(fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog);
}
