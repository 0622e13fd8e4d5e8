import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { equalBytes, Reader, toHex } from "../../../lib/bytes.ts";
import { GSO, NEEDS_CSUM } from "../../../lib/engine/packet.ts";
import { finishChecksum } from "../../../lib/engine/segment.ts";
import {
  ACK,
  CWR,
  ECE,
  FIN,
  hasRightChecksums,
  PSH,
  randomBytes,
  RST,
  seededRandom,
  SYN,
  type TcpPacket,
  tcpPacket,
  udpPacket,
  URG,
} from "../../ip_packets.ts";
import { Bench, flowOf, type Random, randomTcp, superPacket, tcpType } from "../../segments.ts";

Deno.test("a super-packet of TCP is cut into right packets of the same stream", () => {
  const random = seededRandom(2);
  const bench = new Bench();
  for (let i = 0; i < 150; i++) {
    const tcp = randomTcp(random);
    const flags = ACK | [0, PSH, FIN, PSH | FIN, ECE, CWR, ECE | CWR | PSH][random(7)]!;
    const ipOptions = tcp.version === 4 ? randomBytes(random, 4 * random(3)) : new Uint8Array();
    const size = 1 + random(1500);
    const type = tcpType(tcp.version, (flags & CWR) !== 0);
    const { vnet, packet } = superPacket(tcpPacket({ ...tcp, flags, ipOptions }), { type, size });
    const parts = bench.cut(vnet, packet)!;
    for (const [k, part] of parts.entries()) {
      const isLast = k === parts.length - 1;
      const expected = tcpPacket({
        ...{ ...tcp, ipOptions },
        sequence: (tcp.sequence + k * size) % 2 ** 32,
        id: (tcp.id! + k) & 0xffff,
        flags: flags & ~(isLast ? 0 : PSH | FIN) & ~(k === 0 ? 0 : CWR),
        payload: tcp.payload.subarray(k * size, (k + 1) * size),
      });
      ok(equalBytes(part, expected), `packet ${k} of ${parts.length}, round ${i}`);
    }
  }
});

Deno.test("urgent data stays where it is in the stream", () => {
  const bench = new Bench();
  const tcp: TcpPacket = {
    ...{ version: 4, flow: 1, sequence: 100, flags: ACK | URG, urgent: 250 },
    payload: new Uint8Array(400),
  };
  const { vnet, packet } = superPacket(tcpPacket(tcp), { type: GSO.tcp4, size: 100 });
  const seen = bench.cut(vnet, packet)!.map((part) => {
    ok(hasRightChecksums(part));
    const reader = new Reader(part.subarray(20), "network").skip(13);
    return [reader.u8() & URG, reader.skip(4).u16()];
  });
  deepStrictEqual(seen, [[URG, 250], [URG, 150], [URG, 50], [0, 0]]);
});

Deno.test("a super-packet of UDP is cut into right datagrams", () => {
  const random = seededRandom(3);
  const bench = new Bench();
  for (let i = 0; i < 100; i++) {
    const { version, flow, payload, id, tos, ttl, fragment } = randomTcp(random);
    const udp = { version, flow, payload, id: id!, tos: tos!, ttl: ttl!, fragment: fragment! };
    const size = 1 + random(1400);
    const { vnet, packet } = superPacket(udpPacket(udp), { type: GSO.udp, size });
    for (const [k, part] of bench.cut(vnet, packet)!.entries()) {
      const rest = payload.subarray(k * size, (k + 1) * size);
      ok(equalBytes(part, udpPacket({ ...udp, payload: rest, id: (id! + k) & 0xffff })));
    }
  }
});

Deno.test("what cannot be cut is refused", () => {
  const bench = new Bench();
  const payload = new Uint8Array(3000);
  const good = superPacket(tcpPacket({ version: 4, flow: 1, sequence: 1, payload }), {
    type: GSO.tcp4,
    size: 1000,
  });
  const vnet = (change: (header: Uint16Array) => void) => {
    const header = good.vnet.slice();
    change(new Uint16Array(header.buffer));
    return header;
  };
  const cases: [string, Uint8Array, Uint8Array][] = [
    ["no checksum asked for", vnet((h) => h[0]! &= 0xff00), good.packet],
    ["unknown type", vnet((h) => h[0] = NEEDS_CSUM | 3 << 8), good.packet],
    ["size 0", vnet((h) => h[2] = 0), good.packet],
    ["TCP header outside", vnet((h) => h[3] = 65_000), good.packet],
    ["cut short", good.vnet, good.packet.subarray(0, 30)],
    ["no IP", good.vnet, new Uint8Array(3000)],
  ];
  strictEqual(bench.cut(good.vnet, good.packet)!.length, 3);
  for (const [name, header, packet] of cases) {
    strictEqual(bench.cut(header, packet), undefined, name);
  }
});

Deno.test("finishChecksum() adds what the kernel has left out", () => {
  const bench = new Bench();
  const whole = tcpPacket({
    version: 6,
    flow: 3,
    sequence: 9,
    payload: randomBytes(seededRandom(4), 77),
  });
  const { vnet, packet } = superPacket(whole, { type: GSO.tcp6, size: 1 });
  const [vnetAt, at] = [bench.put(vnet), bench.put(packet)];
  ok(finishChecksum(bench.arena, bench.sum, vnetAt, at, packet.length));
  deepStrictEqual(bench.arena.bytes.slice(at, at + packet.length), whole);
  ok(!finishChecksum(bench.arena, bench.sum, vnetAt, at, 50), "a field outside the packet");
});

Deno.test("what was cut and is joined again is the same super-packet, byte for byte", () => {
  const random = seededRandom(5);
  const bench = new Bench();
  for (let i = 0; i < 150; i++) {
    const tcp = randomTcp(random);
    const end = [0, PSH, FIN, PSH | FIN][random(4)]!;
    const size = Math.max(1 + random(1500), Math.ceil(tcp.payload.length / 64));
    const isUdp = random(3) === 0;
    const whole = isUdp
      ? superPacket(udpPacket(tcp), { type: GSO.udp, size })
      : superPacket(tcpPacket({ ...tcp, flags: ACK | end | random(2) * ECE }), {
        type: tcpType(tcp.version, false),
        size,
      });
    const parts = bench.cut(whole.vnet, whole.packet)!;
    const joined = bench.join(parts.map((packet) => ({ device: 1, packet })), random(2));
    strictEqual(joined.length, 1, `${parts.length} packets of ${size}, round ${i}`);
    if (parts.length === 1) {
      ok(equalBytes(joined[0]!.packet, parts[0]!));
    } else {
      ok(equalBytes(joined[0]!.packet, whole.packet));
      deepStrictEqual(joined[0]!.vnet, whole.vnet);
    }
  }
});

/** Flows that go on, break off, and are mixed; some packets may not be joined with any. */
function randomTraffic(random: Random): { device: number; packet: Uint8Array }[] {
  const flows = Array.from({ length: 1 + random(12) }, (_, flow) => ({
    ...{ ...randomTcp(random), flow, isUdp: random(3) === 0, device: random(2) },
    size: 1 + random(600),
  }));
  return Array.from({ length: 100 }, () => {
    const flow = flows[random(flows.length)]!;
    const { device, isUdp } = flow;
    const length = random(10) === 0 ? random(flow.size) : flow.size;
    flow.payload = randomBytes(random, length);
    const change = random(25);
    if (change === 0) flow.tos = random(256);
    if (change === 1) flow.ttl = 1 + random(255);
    if (change === 2) flow.acknowledgement = random(2 ** 32);
    if (change === 3) flow.window = random(65_536);
    if (change === 4) flow.sequence = random(2 ** 32);
    if (change === 5) flow.id = random(65_536);
    if (change === 6) flow.options = randomBytes(random, 4 * random(11));
    if (change === 7) flow.fragment = flow.fragment === 0 ? 0x4000 : 0;
    const odd = random(40);
    const flags = [SYN, RST | ACK, ACK | URG, ACK | CWR, ACK | PSH, ACK | FIN, ACK | ECE][odd] ??
      ACK;
    const more = { flags, ...(odd === 10 && flow.version === 4 ? { fragment: 0x2000 } : {}) };
    const options = odd === 11 ? { ipOptions: Uint8Array.of(7, 3, 0, 0) } : {};
    const packet = (isUdp ? udpPacket : tcpPacket)({ ...flow, ...more, ...options });
    flow.sequence = (flow.sequence + length) % 2 ** 32;
    flow.id = (flow.id! + 1) & 0xffff;
    if (odd === 12) packet[packet.length - 1]! ^= 0x10;
    if (odd === 13) packet[1 + random(packet.length - 1)]! ^= 1 << random(8);
    return { device, packet };
  });
}

function byFlow(packets: { device: number; packet: Uint8Array }[]): Map<string, string[]> {
  const flows = new Map<string, string[]>();
  for (const packet of packets) {
    const flow = flowOf(packet);
    flows.set(flow, [...flows.get(flow) ?? [], toHex(packet.packet)]);
  }
  return flows;
}

Deno.test("whatever comes in, what is joined can be cut into just that, in order", () => {
  const random = seededRandom(6);
  const bench = new Bench();
  let [packets, superPackets] = [0, 0];
  for (let i = 0; i < 80; i++) {
    const traffic = randomTraffic(random);
    const joined = bench.join(traffic, random(2));
    packets += traffic.length;
    superPackets += joined.length;
    const cut = joined.flatMap(({ device, vnet, packet }) =>
      bench.cut(vnet, packet)!.map((part) => ({ device, packet: part }))
    );
    deepStrictEqual(byFlow(cut), byFlow(traffic), `round ${i}`);
  }
  ok(superPackets < packets * 0.8, `${packets} packets in ${superPackets}`);
});

Deno.test("packets whose identification does not count are joined all the same", () => {
  const bench = new Bench();
  const packet = (k: number, fragment: number) =>
    tcpPacket({
      version: 4,
      flow: 1,
      sequence: k * 10,
      payload: new Uint8Array(10),
      id: 0,
      fragment,
    });
  const join = (fragment: number) =>
    bench.join([0, 1, 2].map((k) => ({ device: 1, packet: packet(k, fragment) }))).length;
  strictEqual(join(0x4000), 1, "don't fragment");
  strictEqual(join(0), 3, "may be fragmented: each needs its own");
});

Deno.test("UDP stays as it is where the kernel takes no super-packets of it", () => {
  const bench = new Bench();
  const packet = udpPacket({ version: 4, flow: 1, payload: new Uint8Array(10), id: 0 });
  const packets = [packet, packet].map((packet) => ({ device: 1, packet }));
  strictEqual(bench.join(packets, 0, true).length, 1);
  deepStrictEqual(bench.join(packets, 0, false).map(({ packet }) => packet), [packet, packet]);
});
