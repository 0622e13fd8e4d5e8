import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { toHex } from "../../../lib/bytes.ts";
import { Arena } from "../../../lib/engine/arena.ts";
import { type IcmpReason, writeIcmpError } from "../../../lib/engine/icmp_error.ts";
import { plainSum } from "../../../lib/engine/sum.ts";
import { onesComplementSum } from "../../../lib/checksum.ts";
import { hasRightChecksums, tcpPacket, udpPacket } from "../../ip_packets.ts";

function errorAbout(packet: Uint8Array, reason: IcmpReason, mtu = 0): Uint8Array {
  const arena = new Arena(new ArrayBuffer(8192));
  const tools = { arena, sum: plainSum(arena) };
  arena.bytes.set(packet, 64);
  const version = packet[0]! >> 4 === 4 ? 4 : 6;
  const length = writeIcmpError(
    tools,
    { at: 64, length: packet.length, version },
    { reason, mtu },
    4096,
  );
  return arena.bytes.slice(4096, 4096 + length);
}

const tcp = (version: 4 | 6, length: number) =>
  tcpPacket({ version, flow: 9, sequence: 1, payload: new Uint8Array(length) });

Deno.test("an ICMP error comes from where the packet went and quotes it", () => {
  const packet = tcp(4, 10);
  const error = errorAbout(packet, "too-big", 1380);
  deepStrictEqual([...error.subarray(12, 20)], [10, 0, 2, 9, 10, 0, 1, 9]);
  strictEqual(toHex(error.subarray(20, 22)), "0304");
  strictEqual(toHex(error.subarray(24, 28)), "00000564");
  strictEqual(toHex(error.subarray(28)), toHex(packet));
  strictEqual(onesComplementSum(error.subarray(0, 20)), 0xffff);
  strictEqual(onesComplementSum(error.subarray(20)), 0xffff);
});

Deno.test("an ICMPv6 error has a pseudo header's sum", () => {
  const error = errorAbout(tcp(6, 3000), "too-big", 1280);
  strictEqual(error.length, 1280, "no longer than the least MTU");
  ok(hasRightChecksums(error));
  strictEqual(toHex(error.subarray(40, 42)) + toHex(error.subarray(44, 48)), "0200" + "00000500");
  strictEqual(toHex(errorAbout(tcp(6, 1), "prohibited").subarray(40, 42)), "0101");
});

Deno.test("an IPv4 error is no longer than 576 bytes", () => {
  strictEqual(errorAbout(tcp(4, 1000), "unreachable").length, 576);
});

Deno.test("no error is sent about errors, fragments, and what is for many", () => {
  const changed = (packet: Uint8Array, at: number, value: number) => {
    const copy = packet.slice();
    copy[at] = value;
    return copy;
  };
  const icmp = (version: 4 | 6, type: number) => {
    const at = version === 4 ? 20 : 40;
    const base = udpPacket({ version, flow: 1, payload: new Uint8Array(20) });
    return changed(changed(base, version === 4 ? 9 : 6, version === 4 ? 1 : 58), at, type);
  };
  const cases: [string, Uint8Array, boolean][] = [
    ["echo request", icmp(4, 8), true],
    ["unreachable", icmp(4, 3), false],
    ["time exceeded", icmp(4, 11), false],
    ["echo request of IPv6", icmp(6, 128), true],
    ["too big of IPv6", icmp(6, 2), false],
    ["first fragment", changed(tcp(4, 9), 6, 0x20), true],
    ["later fragment", changed(tcp(4, 9), 7, 1), false],
    ["multicast", changed(tcp(4, 9), 16, 224), false],
    ["no source", changed(tcp(4, 9), 12, 0), false],
    ["IPv6 multicast", changed(tcp(6, 9), 24, 0xff), false],
  ];
  for (const [name, packet, isAnswered] of cases) {
    strictEqual(errorAbout(packet, "unreachable").length > 0, isAnswered, name);
  }
});
