/**
 * Super-packets that this host's kernel cuts or joins on the way through a veth, and the engine's
 * code at the other end; what is expected is made by neither. Needs root.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { concatBytes, equalBytes, Writer } from "../../lib/bytes.ts";
import { GSO, NEEDS_CSUM, VNET_HEADER } from "../../lib/engine/packet.ts";
import { finishChecksum } from "../../lib/engine/segment.ts";
import { type Host, Lab } from "../lab/mod.ts";
import {
  AF_INET,
  type BulkTun,
  check,
  cString,
  Epoll,
  libc,
  openBulkTun,
  openSocket,
  SOCK_DGRAM,
} from "../../lib/linux/mod.ts";
import { ACK, ECE, FIN, PSH, seededRandom, tcpPacket, udpPacket } from "../ip_packets.ts";
import { sleep } from "../overlay.ts";
import { Bench, flowOf, type Random, randomTcp, type SuperPacket } from "../segments.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
new Epoll()[Symbol.dispose]();

const ROUNDS = 80;
const SEED = Number(Deno.env.get("GRETUN_SEGMENTS_SEED") ?? Date.now() % 2 ** 31);
/** With the longest headers it fits the veth's MTU. */
const MAX_SIZE = 1400;
const ROUTERS = 2;
const DEADLINE_MS = 30_000;
const SIOCETHTOOL = 0x8946;
const [ETHTOOL_STXCSUM, ETHTOOL_SGRO] = [0x17, 0x2c];
/** So long the kernel waits for more to join; 20 ms. */
const HOLD_NS = 20_000_000;

/** From a device on one host through a veth to a device on the other. */
class Way implements AsyncDisposable {
  readonly #lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  readonly #from = this.#lab.host("from", { behind: this.#lab.nat("nat-from") });
  readonly #to = this.#lab.host("to", { behind: this.#lab.nat("nat-to") });
  readonly #in: BulkTun = this.#from.within(() => openBulkTun("tun0"));
  readonly #out: BulkTun = this.#to.within(() => openBulkTun("tun0"));
  readonly #buffer = new Uint8Array(VNET_HEADER + 65_536);

  /** The first host's end cuts by itself, and the other's joins, or not. */
  static async open({ cuts, joins }: { cuts: boolean; joins: boolean }): Promise<Way> {
    await using stack = new AsyncDisposableStack();
    const way = stack.use(new Way());
    const [from, to] = [way.#from, way.#to];
    await shell(from, `ip link add veth0 type veth peer name veth0 netns ${to.netnsName}`);
    for (const [host, own, far, ways] of [[from, 1, 2, 1], [to, 2, 1, 2]] as const) {
      const [v4, v6] = [`10.0.${3 - ways}.0/24`, `fd00::${3 - ways}00/120`];
      await shell(
        host,
        `ip address flush dev eth0
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        ip address add 192.0.2.${own}/24 dev veth0
        ip -6 address add fd01::${own}/64 dev veth0 nodad
        ip link set veth0 up; ip link set tun0 up
        ip route add 10.0.${ways}.0/24 dev tun0; ip -6 route add fd00::${ways}00/120 dev tun0
        ip route add ${v4} via 192.0.2.${far}; ip -6 route add ${v6} via fd01::${far}`,
      );
    }
    from.within(() => switchOffload("veth0", ETHTOOL_STXCSUM, !cuts));
    to.within(() => switchOffload("veth0", ETHTOOL_SGRO, joins));
    const hold = `mount -t sysfs sys /sys; echo ${HOLD_NS} >/sys/class/net/veth0/gro_flush_timeout`;
    await shell(to, `unshare -m sh -c '${hold}'`);
    // The first packet of a family would wait for the neighbour's answer.
    await shell(from, "ping -qn -c 1 192.0.2.2; ping -qn -c 1 fd01::2");
    stack.move();
    return way;
  }

  get cutsUdp(): boolean {
    return this.#in.cutsUdp && this.#out.cutsUdp;
  }

  send({ vnet, packet }: SuperPacket): void {
    const bytes = concatBytes(vnet, packet) as Uint8Array<ArrayBuffer>;
    check("write", libc().write(this.#in.fd.fd, bytes, BigInt(bytes.length)));
  }

  /** What comes of that flow, until so much has come as the caller wants. */
  async receive(flow: string, isEnough: (got: SuperPacket[]) => boolean): Promise<SuperPacket[]> {
    const got: SuperPacket[] = [];
    const endMs = performance.now() + DEADLINE_MS;
    while (!isEnough(got) && performance.now() < endMs) {
      const size = BigInt(this.#buffer.length);
      const length = Number(libc().read(this.#out.fd.fd, this.#buffer, size));
      if (length < 0) await sleep(1);
      else {
        const bytes = this.#buffer.slice(0, length);
        const packet = bytes.subarray(VNET_HEADER);
        // The kernel says something of its own now and then.
        if (flowOf({ device: 0, packet }) !== flow) continue;
        got.push({ vnet: bytes.subarray(0, VNET_HEADER), packet });
      }
    }
    return got;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#in.fd[Symbol.dispose]();
    this.#out.fd[Symbol.dispose]();
    await this.#lab[Symbol.asyncDispose]();
  }
}

async function shell(host: Host, script: string): Promise<void> {
  const { code, stderr } = await host.run("sh", ["-ec", script]);
  strictEqual(code, 0, stderr);
}

function switchOffload(ifname: string, command: number, isOn: boolean): void {
  using socket = openSocket(AF_INET, SOCK_DGRAM, 0);
  const value = new Writer("host", 8).u32(command).u32(isOn ? 1 : 0).finish();
  const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(value)));
  const name = cString(ifname);
  const ifreq = new Writer("host", 40).bytes(name).zeros(16 - name.length).u64(address).zeros(16)
    .finish();
  check("ethtool", libc().ioctl(socket.fd, BigInt(SIOCETHTOOL), ifreq));
}

interface Stream {
  flow: string;
  /** As they are sent. */
  packets: Uint8Array[];
  /** As they are behind the routers. */
  expected: Uint8Array[];
}

/** A random packet in parts as large as `size`, made one by one. */
function randomStream(random: Random, withUdp: boolean): Stream {
  const tcp = { ...randomTcp(random), ttl: 1 + ROUTERS + random(250) };
  const size = Math.max(1 + random(MAX_SIZE), Math.ceil(tcp.payload.length / 64));
  const isUdp = withUdp && random(3) === 0;
  const flags = ACK | random(2) * ECE;
  const end = [0, PSH, FIN, PSH | FIN][random(4)]!;
  const count = Math.ceil(tcp.payload.length / size);
  const parts = (ttl: number) =>
    Array.from({ length: count }, (_, k) => {
      const part = {
        ...{ ...tcp, ttl, id: (tcp.id! + k) & 0xffff },
        payload: tcp.payload.subarray(k * size, (k + 1) * size),
      };
      return isUdp ? udpPacket(part) : tcpPacket({
        ...part,
        sequence: (tcp.sequence + k * size) % 2 ** 32,
        flags: flags | (k === count - 1 ? end : 0),
      });
    });
  const packets = parts(tcp.ttl);
  const flow = flowOf({ device: 0, packet: packets[0]! });
  return { flow, packets, expected: parts(tcp.ttl - ROUTERS) };
}

/** As they would go out: cut, and with the checksums that the kernel left open. */
function cutAll(bench: Bench, got: readonly SuperPacket[]): Uint8Array[] {
  return got.flatMap(({ vnet, packet }) => {
    if (vnet[1] !== GSO.none || (vnet[0]! & NEEDS_CSUM) === 0) return bench.cut(vnet, packet)!;
    const [vnetAt, at] = [bench.put(vnet), bench.put(packet)];
    ok(finishChecksum(bench.arena, bench.sum, vnetAt, at, packet.length));
    return [bench.arena.bytes.slice(at, at + packet.length)];
  });
}

const ALONE = new Uint8Array(VNET_HEADER);

for (const cuts of [true, false]) {
  Deno.test(`joined by us, cut by ${cuts ? "the kernel" : "us again"}: the same packets, seed ${SEED}`, async () => {
    const random = seededRandom(SEED);
    const bench = new Bench();
    await using way = await Way.open({ cuts, joins: false });
    let superPackets = 0;
    for (let i = 0; i < ROUNDS; i++) {
      const { flow, packets, expected } = randomStream(random, way.cutsUdp);
      const joined = bench.join(packets.map((packet) => ({ device: 0, packet })));
      strictEqual(joined.length, 1);
      way.send(joined[0]!);
      const got = await way.receive(flow, (got) => cutAll(bench, got).length >= packets.length);
      compare(cutAll(bench, got), expected, `round ${i}`);
      superPackets += got.filter(({ vnet }) => vnet[1] !== GSO.none).length;
    }
    strictEqual(superPackets > 0, !cuts);
  });
}

for (const joins of [true, false]) {
  Deno.test(`cut by us, ${joins ? "joined by the kernel" : "not joined"}: the same packets, seed ${SEED}`, async () => {
    const random = seededRandom(SEED + 1);
    const bench = new Bench();
    await using way = await Way.open({ cuts: true, joins });
    let superPackets = 0;
    for (let i = 0; i < ROUNDS; i++) {
      const { flow, packets, expected } = randomStream(random, way.cutsUdp);
      const [joined] = bench.join(packets.map((packet) => ({ device: 0, packet })));
      const cut = bench.cut(joined!.vnet, joined!.packet)!;
      for (const packet of cut) way.send({ vnet: ALONE, packet });
      const got = await way.receive(flow, (got) => cutAll(bench, got).length >= packets.length);
      compare(cutAll(bench, got), expected, `round ${i}`);
      superPackets += got.filter(({ vnet }) => vnet[1] !== GSO.none).length;
    }
    strictEqual(superPackets > 0, joins);
  });
}

function compare(got: readonly Uint8Array[], expected: readonly Uint8Array[], what: string): void {
  strictEqual(got.length, expected.length, `${what}: ${expected[0]!.subarray(0, 80)}`);
  for (const [k, packet] of got.entries()) {
    if (!equalBytes(packet, expected[k]!)) deepStrictEqual(packet, expected[k]!, `${what}, ${k}`);
  }
}
