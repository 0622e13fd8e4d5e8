/** What the filters pass: a machine for classic BPF runs them over whole packets. */
import { strictEqual } from "node:assert/strict";
import { concatBytes, fromHex, Reader, Writer } from "../../../lib/bytes.ts";
import {
  dataFilter,
  isSignalling,
  type Signalling,
  signallingFilter,
} from "../../../lib/linux/udp_filter.ts";

const PORT = 7777;
const PATTERNS: Signalling = {
  kind: "patterns",
  any: [
    { offset: 0, bytes: fromHex("5453f09f92ac") },
    { offset: 4, bytes: fromHex("2112a442") },
    { offset: 1, bytes: fromHex("a0b0c0"), mask: fromHex("f0ff00") },
  ],
};

/** linux/filter.h, as far as the filters go: what is accepted, in bytes. */
function run(program: Uint8Array, packet: Uint8Array): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const reader = new Reader(program, "host");
  const steps = Array.from({ length: program.length / 8 }, () => {
    const [code, jt, jf, k] = [reader.u16(), reader.u8(), reader.u8(), reader.u32()];
    return { code, jt, jf, k };
  });
  let [a, x, m] = [0, 0, 0];
  for (let pc = 0;; pc++) {
    const { code, jt, jf, k } = steps[pc]!;
    const jump = (isTrue: boolean) => pc += isTrue ? jt : jf;
    const widths: Record<number, number> = { 0x50: 1, 0x48: 2, 0x40: 4 };
    const width = widths[code];
    if (width !== undefined) {
      if (x + k + width > packet.length) return 0;
      a = width === 1
        ? view.getUint8(x + k)
        : width === 2
        ? view.getUint16(x + k)
        : view.getUint32(x + k);
    } else if (code === 0xb1) x = 4 * (view.getUint8(k) & 0xf);
    else if (code === 0x01) x = k;
    else if (code === 0x61) x = m;
    else if (code === 0x02) m = a;
    else if (code === 0x04) a = (a + k) >>> 0;
    else if (code === 0x54) a = (a & k) >>> 0;
    else if (code === 0x15) jump(a === k);
    else if (code === 0x1d) jump(a === x);
    else if (code === 0x35) jump(a >= k);
    else if (code === 0x06) return k;
    else throw new Error(`no instruction ${code}`);
  }
}

const udp = (payload: Uint8Array, port = PORT) =>
  new Writer("network").u16(4000).u16(port).u16(8 + payload.length).u16(0).bytes(payload).finish();
const ipv4 = (datagram: Uint8Array) =>
  concatBytes(new Writer("network").u16(0x4600).zeros(22).finish(), datagram);

const bare = (length: number, said = length) => {
  const bytes = new Uint8Array(length);
  bytes.set([0x45, 0, said >> 8, said & 0xff]);
  return bytes;
};

const CASES: [string, Signalling, Uint8Array, boolean][] = [
  ["disco", PATTERNS, fromHex("5453f09f92ac" + "00".repeat(20)), true],
  ["disco and nothing more", PATTERNS, fromHex("5453f09f92ac"), true],
  ["less than disco", PATTERNS, fromHex("5453f09f92"), false],
  ["the second pattern", PATTERNS, fromHex("000100002112a442"), true],
  ["less than the second", PATTERNS, fromHex("000100002112a4"), false],
  ["the bits of a mask", PATTERNS, fromHex("00afb0ff"), true],
  ["other bits of a mask", PATTERNS, fromHex("00bfb0ff"), false],
  ["GRE", PATTERNS, fromHex("20000800deadbeef4500" + "00".repeat(40)), false],
  ["nothing", PATTERNS, new Uint8Array(), false],
  ["bare IPv4", { kind: "not-ipv4" }, bare(60), false],
  ["a bare header", { kind: "not-ipv4" }, bare(20), false],
  ["IPv4 of another length", { kind: "not-ipv4" }, bare(73, 60), true],
  ["IPv6", { kind: "not-ipv4" }, new Uint8Array(60).fill(0x60), true],
  ["shorter than a header", { kind: "not-ipv4" }, bare(19), true],
  ["an empty payload", { kind: "not-ipv4" }, new Uint8Array(), true],
];

for (const [name, signalling, payload, isIt] of CASES) {
  Deno.test(`filters: ${name} is ${isIt ? "signalling" : "data"}`, () => {
    strictEqual(isSignalling(signalling, payload), isIt);
    strictEqual(run(dataFilter(signalling), udp(payload)) === 0, isIt);
    strictEqual(run(signallingFilter(signalling, PORT), ipv4(udp(payload))) > 0, isIt);
    strictEqual(run(signallingFilter(signalling, PORT, 6), udp(payload)) > 0, isIt);
    strictEqual(run(signallingFilter(signalling, PORT, 6), udp(payload, PORT + 1)), 0);
  });
}
