/**
 * Classic BPF filters (linux/filter.h, linux/bpf_common.h) that tell signalling from data on one
 * UDP port, so that each goes to the socket that is for it and to no other.
 */
import type { Family } from "../addr.ts";
import { Writer } from "../bytes.ts";
import { setOption, SOL_SOCKET } from "./libc.ts";

const SO_ATTACH_FILTER = 26;
const UDP_HEADER = 8;

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

const ACCEPT = 0xffff;
const DROP = 0;

/** u16 code, u8 jump if true, u8 if false, u32 k. */
type Instruction = [code: number, jt: number, jf: number, k: number];

/**
 * What is signalling: "disco" and STUN; "hub", messages with our hub protocol's magic; "not-ipv4",
 * all but IPv4 packets that say their own length, as ipipou does it.
 */
export type Signalling = "disco" | "hub" | "not-ipv4";

const HUB_MAGIC = 0xe7677274;

/** Nothing passes: for a socket that only sends. */
export const DEAF_FILTER = assemble([[RET, 0, 0, DROP]]);

/** For a raw socket, which sees the header of IPv4 but not of IPv6: signalling to `port` only. */
export function signallingFilter(
  signalling: Signalling,
  port: number,
  family: Family = 4,
): Uint8Array<ArrayBuffer> {
  const rest = isSignalling(signalling, [RET, 0, 0, ACCEPT], [RET, 0, 0, DROP]);
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
    ...isSignalling(signalling, [RET, 0, 0, DROP], [RET, 0, 0, 0xffffffff]),
  ]);
}

/** X is where the UDP header begins. A load past the end drops the packet. */
function isSignalling(signalling: Signalling, yes: Instruction, no: Instruction): Instruction[] {
  switch (signalling) {
    case "disco":
      return [
        [LD_W_IND, 0, 0, UDP_HEADER],
        [JEQ_K, 0, 2, 0x5453f09f],
        [LD_H_IND, 0, 0, UDP_HEADER + 4],
        [JEQ_K, 2, 3, 0x92ac],
        [LD_W_IND, 0, 0, UDP_HEADER + 4],
        [JEQ_K, 0, 1, 0x2112a442],
        yes,
        no,
      ];
    case "hub":
      return [[LD_W_IND, 0, 0, UDP_HEADER], [JEQ_K, 0, 1, HUB_MAGIC], yes, no];
    case "not-ipv4":
      return [
        [LD_H_IND, 0, 0, 4], // the UDP header's length
        [ST, 0, 0, 0],
        [JGE_K, 0, 7, UDP_HEADER + 20], // shorter than an IPv4 header: signalling
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
    default:
      return signalling satisfies never;
  }
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
