/** UDP datagrams as raw sockets give and take them, and which addresses of IPv6 last. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { ipBytes, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { concatBytes, fromHex, toHex, Writer } from "../../../lib/bytes.ts";
import { onesComplementSum } from "../../../lib/checksum.ts";
import { decodeAddress } from "../../../lib/netlink/addr.ts";
import { decodeIpUdp, decodeUdp, encodeUdp } from "../../../lib/linux/raw_udp.ts";

const SOURCE = { ip: ipBytes(parseIp("192.0.2.1")), port: 8888 };
const DESTINATION = { ip: ipBytes(parseIp("192.0.2.2")), port: 7777 };
const IPV6 = parseIp("2001:db8::1");

/** An IPv4 header of 20 bytes; nobody looks at its checksum. */
function overIpv4(udp: Uint8Array): Uint8Array {
  const header = new Writer("network").u16(0x4500).u16(20 + udp.length).zeros(5).u8(17).zeros(2)
    .bytes(SOURCE.ip).bytes(DESTINATION.ip).finish();
  return concatBytes(header, udp);
}

Deno.test("encodeUdp() gives a datagram that sums up, of any length", () => {
  for (const length of [0, 1, 2, 77]) {
    const udp = encodeUdp(new Uint8Array(length).fill(0xa5), SOURCE, DESTINATION);
    strictEqual(toHex(udp.subarray(0, 6)), `22b81e61${(8 + length).toString(16).padStart(4, "0")}`);
    const pseudo = concatBytes(SOURCE.ip, DESTINATION.ip, Uint8Array.of(0, 17, 0, 8 + length));
    strictEqual(onesComplementSum(concatBytes(pseudo, udp)), 0xffff, `${length} bytes`);
  }
});

Deno.test("decodeUdp() of what a raw socket of IPv6 gives", () => {
  const cases: [name: string, hex: string, payload: string | undefined][] = [
    ["a datagram", "22b81e61000a0000abcd", "abcd"],
    ["an empty one", "22b81e6100080000", ""],
    ["bytes behind it", "22b81e61000a0000abcd0000", "abcd"],
    ["cut short", "22b81e61000a0000ab", undefined],
    ["a length without its own header", "22b81e6100070000", undefined],
    ["no whole header", "22b81e61000800", undefined],
    ["nothing", "", undefined],
  ];
  for (const [name, hex, payload] of cases) {
    const datagram = decodeUdp(fromHex(hex), IPV6);
    const expected = payload === undefined
      ? undefined
      : { bytes: fromHex(payload), from: parseEndpoint("[2001:db8::1]:8888") };
    deepStrictEqual(datagram, expected, name);
  }
});

Deno.test("decodeIpUdp() looks at the checksum", () => {
  const udp = encodeUdp(fromHex("abcdef"), SOURCE, DESTINATION);
  const withSum = (sum: number) => {
    const changed = udp.slice();
    changed.set([sum >> 8, sum & 0xff], 6);
    return overIpv4(changed);
  };
  const pseudo = concatBytes(SOURCE.ip, DESTINATION.ip, Uint8Array.of(0, 17, 0, udp.length));
  const datagram = { bytes: fromHex("abcdef"), from: parseEndpoint("192.0.2.1:8888") };
  const cases: [name: string, packet: Uint8Array, isTaken: boolean][] = [
    ["right", overIpv4(udp), true],
    ["bytes behind it", concatBytes(overIpv4(udp), new Uint8Array(3)), true],
    ["none", withSum(0), true],
    ["left to the network card", withSum(onesComplementSum(pseudo)), true],
    ["wrong", withSum(0x1234), false],
    ["cut short", overIpv4(udp).subarray(0, 30), false],
    ["no IP header", udp, false],
    ["nothing", new Uint8Array(), false],
  ];
  for (const [name, packet, isTaken] of cases) {
    deepStrictEqual(decodeIpUdp(packet), isTaken ? datagram : undefined, name);
  }
});

Deno.test("decodeAddress() says which addresses of IPv6 do not last", () => {
  const message = (ip: string, flags: number) => {
    const bytes = ipBytes(parseIp(ip));
    const family = bytes.length === 4 ? 2 : 10;
    return new Writer("host").u8(family).u8(24).u8(flags).u8(0).u32(7)
      .u16(4 + bytes.length).u16(1).bytes(bytes).finish();
  };
  const cases: [name: string, ip: string, flags: number, isNotLasting: true | undefined][] = [
    ["permanent", "2001:db8::1", 0x80, undefined],
    ["by router advertisement", "2001:db8::1", 0x00, undefined],
    ["without detection of duplicates", "2001:db8::1", 0x82, undefined],
    ["temporary", "2001:db8::1", 0x01, true],
    ["somebody else's", "2001:db8::1", 0xc8, true],
    ["deprecated", "2001:db8::1", 0x20, true],
    ["tentative", "2001:db8::1", 0xc0, true],
    ["the second one of IPv4", "192.0.2.1", 0x81, undefined],
  ];
  for (const [name, ip, flags, isNotLasting] of cases) {
    strictEqual(decodeAddress(message(ip, flags))?.isNotLasting, isNotLasting, name);
  }
});
