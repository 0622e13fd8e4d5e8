/** Checksums that were left open are found, filled in, and nothing else is touched. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { ipBytes, parseIp } from "../../lib/addr.ts";
import { onesComplementSum } from "../../lib/checksum.ts";
import { concatBytes, Writer } from "../../lib/bytes.ts";
import { fillOpenChecksum } from "../../lib/open_checksum.ts";

const HEADERS = { 6: 20, 17: 8 } as const;
const FIELD = { 6: 16, 17: 6 } as const;

interface Inner {
  version: 4 | 6;
  protocol: 6 | 17;
  payload: number;
  fragment?: number;
}

/** With the sum of its pseudo header where the checksum belongs. */
function open({ version, protocol, payload, fragment = 0 }: Inner): Uint8Array {
  const [source, destination] = (version === 4 ? ["10.0.0.1", "10.0.0.2"] : ["fd00::1", "fd00::2"])
    .map((text) => ipBytes(parseIp(text))) as [Uint8Array, Uint8Array];
  const length = HEADERS[protocol] + payload;
  const body = Uint8Array.from({ length }, (_, i) => i * 37 + 11);
  const pseudo = concatBytes(
    source,
    destination,
    new Writer("network").u32(length).u32(protocol).finish(),
  );
  const field = new Writer("network").u16(onesComplementSum(pseudo)).finish();
  body.set(field, FIELD[protocol]);
  const header = version === 4
    ? new Writer("network").u16(0x4500).u16(20 + length).u16(1).u16(fragment).u8(64).u8(protocol)
      .u16(0).bytes(source).bytes(destination).finish()
    : new Writer("network").u32(0x60000000).u16(length).u8(protocol).u8(64)
      .bytes(source).bytes(destination).finish();
  return concatBytes(header, body);
}

/** Over the pseudo header and the rest: 0xffff where the checksum is right. */
function wholeSum(packet: Uint8Array): number {
  const isIpv4 = packet[0]! >> 4 === 4;
  const start = isIpv4 ? 20 : 40;
  const length = packet.length - start;
  const protocol = packet[isIpv4 ? 9 : 6]!;
  const numbers = new Writer("network").u32(length).u32(protocol).finish();
  const addresses = packet.subarray(isIpv4 ? 12 : 8, start);
  const rest = packet.subarray(start);
  const even = rest.length % 2 === 0 ? rest : concatBytes(rest, new Uint8Array(1));
  return onesComplementSum(concatBytes(addresses, numbers, even));
}

for (const version of [4, 6] as const) {
  for (const protocol of [6, 17] as const) {
    for (const payload of [0, 1, 1400, 60_000]) {
      Deno.test(`IPv${version}, protocol ${protocol}, ${payload} bytes: filled in once`, () => {
        const packet = open({ version, protocol, payload });
        fillOpenChecksum(packet);
        strictEqual(wholeSum(packet), 0xffff);
        const before = packet.slice();
        fillOpenChecksum(packet);
        deepStrictEqual(packet, before);
      });
    }
  }
}

Deno.test("what is no whole TCP or UDP packet stays as it is", () => {
  const tcp = open({ version: 4, protocol: 6, payload: 100 });
  const icmp = tcp.slice();
  icmp[9] = 1;
  const cases: [string, Uint8Array][] = [
    ["a first fragment", open({ version: 4, protocol: 17, payload: 100, fragment: 0x2000 })],
    ["a later fragment", open({ version: 4, protocol: 17, payload: 100, fragment: 7 })],
    ["another protocol", icmp],
    ["half a header", tcp.slice(0, 30)],
    ["no header", tcp.slice(0, 20)],
  ];
  for (const [name, packet] of cases) {
    const before = packet.slice();
    fillOpenChecksum(packet);
    deepStrictEqual(packet, before, name);
  }
});
