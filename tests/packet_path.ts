/**
 * Both directions of the user-space path in one thread, under random and mutated packets: loopback
 * outside, pairs of sockets in place of devices. What has to come out, and where, is decided here by
 * other code than the path has.
 */
import { type Endpoint, equalEndpoints, ipBytes, parseCidr, parseIp } from "../lib/addr.ts";
import { concatBytes, equalBytes, toHex, Writer } from "../lib/bytes.ts";
import { onesComplementSum } from "../lib/checksum.ts";
import { isIpPacket } from "../lib/engine/mod.ts";
import { udpDestination } from "./inner_guard.ts";
import { openAead } from "../lib/engine/aead.ts";
import { Arena } from "../lib/engine/arena.ts";
import { Cipher } from "../lib/engine/cipher.ts";
import { HeaderReader, HeaderWriter } from "../lib/engine/encapsulation.ts";
import { Inward } from "../lib/engine/inward.ts";
import { WorkerTables } from "../lib/engine/links.ts";
import type { Encapsulation, LinkSpec } from "../lib/engine/messages.ts";
import { Outward } from "../lib/engine/outward.ts";
import { GSO, NEEDS_CSUM, VNET_HEADER } from "../lib/engine/packet.ts";
import type { Network } from "../lib/engine/tables.ts";
import { vectorSum } from "../lib/engine/sum.ts";
import {
  AF_UNIX,
  BulkUdpSocket,
  check,
  Epoll,
  Fd,
  libc,
  MSG_DONTWAIT,
  setIntOption,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  sockAddrOf,
} from "../lib/linux/mod.ts";
import { ACK, PSH, seededRandom, tcpPacket, udpPacket } from "./ip_packets.ts";
import { SealedEnd } from "./sealed_end.ts";
import { Bench, flowOf, type Random, type SuperPacket, superPacket, tcpType } from "./segments.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
new Epoll()[Symbol.dispose]();
const AEAD = await openAead();

export const ENCAPSULATIONS = [
  "gre",
  "bare",
  "jtunnel",
  "sealed",
] as const satisfies Encapsulation[];
export const DIRECTIONS = ["out", "in"] as const;

/** Packets of so many flows belong to one link. */
const FLOWS_PER_LINK = 32;
const LINKS = 6;
/** It carries nothing. */
const PATHLESS = 5;
/** What is sealed well may come to these from everywhere. */
const ROAMING = [4, PATHLESS];
/** Of a link, that are sent again and again, or late. */
const KEPT_DATAGRAMS = 20;
const BATCH = 24;
const [SOL_UDP, UDP_GRO] = [17, 104];
/** In one batch; the sockets' buffers hold more. */
const MAX_DATAGRAMS = 300;
const SAMPLES = 400;
const HERE = parseIp("127.0.0.1");
const EDGES = [0, 1, 4, 5, 6, 17, 58, 60, 64, 127, 128, 224, 254, 255];
/** Mostly headers. */
const MUTATED_BYTES = 90;
const ALONE = new Uint8Array(VNET_HEADER);
const SEQPACKET = [AF_UNIX, 5 | SOCK_NONBLOCK | SOCK_CLOEXEC, 0] as const;

interface Link {
  spec: LinkSpec;
  remote: Endpoint | undefined;
  /** The far end's socket. */
  far: BulkUdpSocket;
  sealed: SealedEnd | undefined;
  /** Sealed datagrams of a while ago. */
  kept: Uint8Array[];
  /** The kernel's end of the device. */
  kernel: Fd;
  device: Fd;
}

export interface PathOutcome {
  packets: number;
  delivered: number;
}

/** Puts so many packets through, the same for the same seed. Throws on the first that goes wrong. */
export function fuzzPath(
  direction: typeof DIRECTIONS[number],
  encapsulation: typeof ENCAPSULATIONS[number],
  packets: number,
  seed: number,
): PathOutcome {
  using path = new PacketPath(encapsulation, seed);
  const outcome = { packets: 0, delivered: 0 };
  while (outcome.packets < packets) {
    outcome.delivered += direction === "out" ? path.goOut() : path.comeIn();
    outcome.packets += BATCH;
  }
  return outcome;
}

class PacketPath implements Disposable {
  readonly #encapsulation: Encapsulation;
  readonly #random: Random;
  readonly #stack = new DisposableStack();
  readonly #main: BulkUdpSocket;
  readonly #stranger: BulkUdpSocket;
  readonly #links: Link[];
  readonly #tables: WorkerTables;
  readonly #outward: Outward;
  readonly #inward: Inward;
  readonly #bench = new Bench();
  readonly #samples: { flow: number; whole: SuperPacket; parts: Uint8Array[] }[];
  readonly #buffer = new Uint8Array(VNET_HEADER + 65_536);
  #nowMs = 0;

  constructor(encapsulation: Encapsulation, seed: number) {
    this.#encapsulation = encapsulation;
    this.#random = seededRandom(seed);
    const socket = (ip: string) =>
      this.#stack.use(
        BulkUdpSocket.open({ family: 4, port: 0, bind: parseIp(ip), allowFragments: true }),
      );
    this.#main = socket(HERE);
    this.#stranger = socket("127.0.0.2");
    this.#links = Array.from(
      { length: LINKS },
      (_, i) => this.#link(i, socket(`127.0.0.${2 + i}`)),
    );
    const memory = new WebAssembly.Memory({ initial: 32, maximum: 32 });
    const arena = Arena.over(memory);
    this.#tables = new WorkerTables(arena, encapsulation);
    const { fd, family, port, segments } = this.#main;
    this.#tables.apply({ kind: "socket", socket: { id: 0, fd, family, port, segments } });
    for (const { spec } of this.#links) this.#tables.apply({ kind: "link", link: spec });
    const headers = new HeaderReader(arena, encapsulation);
    headers.setLinks(this.#tables.specs());
    const none = () => {};
    const tools = {
      ...{ arena, sum: vectorSum(memory), tables: this.#tables },
      cipher: encapsulation === "sealed" ? new Cipher(AEAD) : undefined,
      nowMs: () => this.#nowMs,
    };
    this.#outward = new Outward({
      ...{ ...tools, headers: new HeaderWriter(arena, encapsulation, idOf(0)) },
      events: { onDrop: none, onTooBig: none, onDeviceGone: none },
    });
    this.#inward = new Inward({
      ...{ ...tools, headers, control: { kind: "patterns", any: [] }, meetsStrangers: false },
      events: { onDrop: none, onHeard: none, onControl: none, onStranger: none, onSession: none },
    });
    this.#samples = Array.from({ length: SAMPLES }, () => this.#sample());
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  /** Keys and limits differ; the last has no path. */
  #link(id: number, far: BulkUdpSocket): Link {
    setIntOption(far.fd, SOL_UDP, UDP_GRO, 0);
    const [device, kernel] = socketPair().map((fd) => this.#stack.use(fd)) as [Fd, Fd];
    const remote = id === PATHLESS
      ? undefined
      : { ip: parseIp(`127.0.0.${2 + id}`), port: far.port };
    const first = id * FLOWS_PER_LINK;
    const own = [`10.0.1.${first}/27`, `fd00::1${first.toString(16).padStart(2, "0")}/123`];
    const theirs = [`10.0.2.${first}/27`, `fd00::2${first.toString(16).padStart(2, "0")}/123`];
    const sources = networks(...own, ...theirs);
    const destinations = networks(`10.0.2.${first}/${26 + id % 3}`, theirs[1]!);
    const sealed = this.#encapsulation === "sealed"
      ? new SealedEnd(id, { encrypt: id % 2 === 0, anySource: ROAMING.includes(id) })
      : undefined;
    const spec: LinkSpec = {
      ...{ id, device: device.fd, cutsUdp: true, mtu: 1400, farId: idOf(1 + id) },
      ...(remote ? { path: { socket: 0, to: sockAddrOf(remote) } } : {}),
      ...(id === 1 ? {} : { keys: { ikey: 100 + id, okey: 200 + id } }),
      ...(id === 4 ? {} : { sources }),
      ...(id === 0 ? {} : { destinations }),
      ...(sealed ? { seal: sealed.spec } : {}),
    };
    return { spec, remote, far, sealed, kept: [], kernel, device };
  }

  #sample() {
    const random = this.#random;
    const flow = random(LINKS * FLOWS_PER_LINK);
    const [isUdp, version] = [random(3) === 0, random(2) === 0 ? 4 as const : 6 as const];
    const payload = new Uint8Array(1 + random(random(4) === 0 ? 1500 : 200)).map((_, i) =>
      i * 7 + flow
    );
    const size = 20 + random(300);
    const common = { version, flow, tos: random(256), ttl: 1 + random(255), payload };
    const count = Math.ceil(payload.length / size);
    const [sequence, id] = [random(2 ** 32), random(65_536)];
    const flags = (k: number) => k === count - 1 && flow % 2 === 0 ? ACK | PSH : ACK;
    const make = (part: Uint8Array, k: number, flags: number) => {
      const own = { ...common, payload: part, id: (id + k) & 0xffff };
      const at = (sequence + k * size) % 2 ** 32;
      return isUdp ? udpPacket(own) : tcpPacket({ ...own, sequence: at, flags });
    };
    const parts = Array.from(
      { length: count },
      (_, k) => make(payload.subarray(k * size, (k + 1) * size), k, flags(k)),
    );
    const type = isUdp ? GSO.udp : tcpType(version, false);
    return { flow, parts, whole: superPacket(make(payload, 0, flags(count - 1)), { type, size }) };
  }

  // --- from devices to far ends

  /** A batch; how many datagrams went out. */
  goOut(): number {
    const random = this.#random;
    this.#nowMs += 1_000;
    const wanted = this.#links.map((): Expected[] => []);
    const told: Told[] = [];
    for (let n = 0; n < BATCH; n++) {
      const sample = this.#samples[random(SAMPLES)]!;
      const id = random(8) === 0 ? random(LINKS) : Math.floor(sample.flow / FLOWS_PER_LINK);
      const { parts, whole } = sample;
      const part = random(parts.length);
      const isWhole = random(3) === 0 && parts.length > 1;
      const right = isWhole ? whole : { vnet: ALONE, packet: parts[part]! };
      const given = random(2) === 0 ? right : this.#mutated(right);
      const link = this.#links[id]!;
      const expected = given === right && this.#goesOut(link, right.packet)
        ? (isWhole ? parts : [right.packet]).map((packet) => ({ packet, loose: 0 }))
        : this.#expectedOut(link, given);
      if (expected.length > MAX_DATAGRAMS) continue;
      wanted[id]!.push(...expected);
      told.push({ what: `link ${id}`, bytes: [given.vnet, given.packet] });
      send(link.kernel, given);
      if (random(3) === 0) this.#outward.serve(this.#tables.links[id]!);
    }
    for (const link of this.#tables.links) this.#outward.serve(link!);
    for (const [id, link] of this.#links.entries()) {
      const got = receiveAll(link.far.fd, this.#buffer);
      if (got.length !== wanted[id]!.length) {
        fail(`${got.length} to ${id} in place of ${wanted[id]!.length}`, told);
      }
      for (const [i, datagram] of got.entries()) {
        if (!this.#isAs(datagram, wanted[id]![i]!, link)) fail(`${toHex(datagram)} to ${id}`, told);
      }
    }
    for (const { spec, kernel } of this.#links) {
      const answers = receiveAll(kernel.fd, this.#buffer);
      const isRight = (packet: Uint8Array) =>
        [1, 58].includes(packet[packet[0]! >> 4 === 4 ? 9 : 6]!);
      const all = answers.every((bytes) => isRight(bytes.subarray(VNET_HEADER)));
      if (!all || (answers.length > 0 && spec.path)) fail(`answers from ${spec.id}`, told);
    }
    return wanted.reduce((sum, { length }) => sum + length, 0);
  }

  /** By its version and destination, and as it is no packet of the path's own. */
  #goesOut({ remote, spec }: Link, packet: Uint8Array): boolean {
    if (!remote || !isIpPacket(packet) || !isWithin(destinationOf(packet), spec.sources)) {
      return false;
    }
    if (this.#encapsulation === "bare" && packet[0]! >> 4 === 6) return false;
    const to = udpDestination(packet, (port) => port === this.#main.port);
    return !to || !this.#links.some(({ remote }) => remote && equalEndpoints(remote, to));
  }

  #expectedOut(link: Link, { vnet, packet }: SuperPacket): Expected[] {
    if (!this.#goesOut(link, packet)) return [];
    const view = new DataView(vnet.buffer, vnet.byteOffset);
    const [flags, type] = [vnet[0]!, vnet[1]!];
    const word = (at: number) => view.getUint16(at, true);
    const [size, start, offset] = [word(4), word(6), word(8)];
    const isOpen = (flags & NEEDS_CSUM) !== 0;
    const isInside = start >= (packet[0]! >> 4 === 4 ? 20 : 40);
    if (type === GSO.none) {
      if (!isOpen) return [{ packet, loose: 0 }];
      const fits = isInside && start + offset + 2 <= packet.length;
      return fits ? [{ packet: summed(packet, start, offset), loose: 0 }] : [];
    }
    const isTcp = [GSO.tcp4, GSO.tcp6].some((each) => each === (type & 0x7f));
    if (!isOpen || !isInside || size === 0 || !isTcp && (type & 0x7f) !== GSO.udp) return [];
    const headers = start + (isTcp ? (packet[start + 12]! >> 4) * 4 : 8);
    if (headers < start + (isTcp ? 20 : 8) || headers > Math.min(packet.length, 240)) return [];
    const payload = packet.subarray(headers);
    return Array.from({ length: Math.max(1, Math.ceil(payload.length / size)) }, (_, k) => ({
      packet: concatBytes(packet.subarray(0, headers), payload.subarray(k * size, (k + 1) * size)),
      loose: headers,
    }));
  }

  // --- from far ends to devices

  /** A batch; how many packets came in. */
  comeIn(): number {
    const random = this.#random;
    const wanted = this.#links.map((): Uint8Array[] => []);
    const told: Told[] = [];
    for (let n = 0; n < BATCH;) {
      const sample = this.#samples[random(SAMPLES)]!;
      const id = random(8) === 0 ? random(LINKS) : Math.floor(sample.flow / FLOWS_PER_LINK);
      const link = this.#links[id]!;
      const from = random(12) === 0
        ? this.#stranger
        : random(12) === 0
        ? this.#links[random(LINKS)]!.far
        : link.far;
      for (const part of sample.parts) {
        if (n++ >= BATCH) break;
        const datagram = link.sealed
          ? this.#sealed(link, part)
          : this.#perhapsMutated(concatBytes(this.#header(link.spec, "in", part), part), 5);
        const to = this.#comesIn(from, datagram);
        if (to) wanted[to.id]!.push(to.inner);
        told.push({ what: `from ${from.port}`, bytes: [datagram] });
        from.send(datagram, { ip: HERE, port: this.#main.port });
      }
    }
    const { fd, family, port, segments } = this.#main;
    this.#inward.serve({ id: 0, fd, family, port, segments });
    for (const [device, { kernel }] of this.#links.entries()) {
      const got = receiveAll(kernel.fd, this.#buffer).flatMap((bytes) =>
        this.#bench.cut(bytes.subarray(0, VNET_HEADER), bytes.subarray(VNET_HEADER))!
      );
      if (!isSameTraffic(got, wanted[device]!)) {
        fail(`to ${device}: ${got.map(toHex)} in place of ${wanted[device]!.map(toHex)}`, told);
      }
    }
    return wanted.reduce((sum, { length }) => sum + length, 0);
  }

  /** Changed before or after it is sealed, or one of a while ago. */
  #sealed({ sealed, kept }: Link, part: Uint8Array): Uint8Array {
    const random = this.#random;
    const datagram = sealed!.seal(this.#perhapsMutated(part, 10), random);
    const isKept = random(8) === 0;
    if (isKept && kept.length < KEPT_DATAGRAMS) kept.push(datagram);
    else if (isKept) {
      const i = random(KEPT_DATAGRAMS);
      const old = kept[i]!;
      if (random(2) === 0) kept[i] = datagram;
      return old;
    }
    return this.#perhapsMutated(datagram, 10);
  }

  /** The link that a datagram is of, and the packet inside. */
  #comesIn(
    from: BulkUdpSocket,
    datagram: Uint8Array,
  ): { id: number; inner: Uint8Array } | undefined {
    const [link, inner] = this.#encapsulation === "sealed"
      ? this.#unsealed(from, datagram)
      : this.#unwrapped(from, datagram);
    if (!link || !inner || !isIpPacket(inner)) return undefined;
    const { spec } = link;
    const isIpv4 = inner[0]! >> 4 === 4;
    if (this.#encapsulation === "bare" && !(isIpv4 && wordAt(inner, 2) === inner.length)) {
      return undefined;
    }
    const isTheirs = isWithin(sourceOf(inner), spec.sources);
    const isRight = isTheirs && isWithin(destinationOf(inner), spec.destinations) &&
      !isOfRouters(inner) && !isAboutOthers(inner, spec.sources);
    return isRight ? { id: spec.id, inner } : undefined;
  }

  /** By its source, and the header before it. */
  #unwrapped(from: BulkUdpSocket, datagram: Uint8Array): [Link?, Uint8Array?] {
    const link = this.#links.find(({ far }) => far === from);
    if (!link?.remote) return [];
    const inner = datagram.subarray(this.#header(link.spec, "in", datagram).length);
    if (!isIpPacket(inner)) return [];
    const rest = withoutPrefix(datagram, this.#header(link.spec, "in", inner));
    return rest ? [link, rest] : [];
  }

  /** By its session. */
  #unsealed(from: BulkUdpSocket, datagram: Uint8Array): [Link?, Uint8Array?] {
    for (const link of this.#links) {
      const isAllowed = link.sealed!.spec.anySource || (link.remote && link.far === from);
      const inner = isAllowed && link.sealed!.taken(datagram);
      if (inner) return [link, inner];
    }
    return [];
  }

  /** Before that packet. */
  #header({ id, keys }: LinkSpec, direction: "in" | "out", packet: Uint8Array): Uint8Array {
    if (this.#encapsulation === "bare") return new Uint8Array();
    if (this.#encapsulation === "jtunnel") return idOf(direction === "out" ? 0 : 1 + id);
    const type = packet[0]! >> 4 === 4 ? 0x0800 : 0x86dd;
    const writer = new Writer("network").u16(keys ? 0x2000 : 0).u16(type);
    return (keys ? writer.u32(direction === "out" ? keys.okey : keys.ikey) : writer).finish();
  }

  /** Whether the datagram is what the link makes of the packet. */
  #isAs(
    datagram: Uint8Array,
    { packet, loose }: Expected,
    { spec, sealed }: Link,
  ): boolean {
    const inner = sealed
      ? sealed.opened(datagram)
      : withoutPrefix(datagram, this.#header(spec, "out", packet));
    if (!inner) return false;
    if (loose === 0) return equalBytes(inner, packet);
    const [from, to] = packet[0]! >> 4 === 4 ? [12, 20] : [8, 40];
    return inner.length === packet.length && inner[0] === packet[0] &&
      equalBytes(inner.subarray(from, to), packet.subarray(from, to)) &&
      equalBytes(inner.subarray(loose), packet.subarray(loose));
  }

  // --- what goes wrong on the way

  #mutated({ vnet, packet }: SuperPacket): SuperPacket {
    const isVnet = this.#random(3) === 0;
    return isVnet
      ? { packet, vnet: this.#changed(vnet.slice()) }
      : { vnet, packet: this.#mutatedBytes(packet) };
  }

  /** Two of so many. */
  #perhapsMutated(bytes: Uint8Array, of: number): Uint8Array {
    return this.#random(of) < 2 ? this.#mutatedBytes(bytes) : bytes;
  }

  #mutatedBytes(bytes: Uint8Array): Uint8Array {
    const random = this.#random;
    const copy = this.#changed(bytes.slice());
    const kind = random(8);
    if (kind === 0) return copy.subarray(0, random(copy.length + 1));
    if (kind === 1) return concatBytes(copy, new Uint8Array(random(40)));
    if (kind === 2) return copy.map((byte, i) => i < MUTATED_BYTES ? random(256) : byte);
    return copy;
  }

  #changed(bytes: Uint8Array): Uint8Array {
    const random = this.#random;
    for (let i = random(3); i >= 0; i--) {
      const at = random(Math.min(bytes.length, MUTATED_BYTES));
      if (random(2) === 0) bytes[at]! ^= 1 << random(8);
      else bytes[at] = EDGES[random(EDGES.length)]!;
    }
    return bytes;
  }
}

interface Expected {
  packet: Uint8Array;
  /** So many bytes of odd headers are written anew: only addresses count. */
  loose: number;
}

/** In order, or at least of each flow. */
function isSameTraffic(got: readonly Uint8Array[], wanted: readonly Uint8Array[]): boolean {
  if (got.length !== wanted.length) return false;
  if (got.every((packet, i) => equalBytes(packet, wanted[i]!))) return true;
  const byFlow = (packets: readonly Uint8Array[]) => {
    const flows = Map.groupBy(packets, (packet) => flowOf({ device: 0, packet }));
    return new Map([...flows].map(([flow, list]) => [flow, list.map(unnumbered).join()]));
  };
  const [a, b] = [byFlow(got), byFlow(wanted)];
  return [...a].every(([flow, text]) => b.get(flow) === text);
}

/** Without what may change on the way: an identification that does not count. */
function unnumbered(packet: Uint8Array): string {
  const counts = packet[0]! >> 4 !== 4 || (packet[6]! & 0x40) === 0;
  if (counts) return toHex(packet);
  const copy = packet.slice();
  for (const at of [4, 5, 10, 11]) copy[at] = 0;
  return toHex(copy);
}

function networks(...texts: string[]): Network[] {
  return texts.map(parseCidr).map(({ ip, prefixLength }) => ({ bytes: ipBytes(ip), prefixLength }));
}

function isWithin(address: Uint8Array, networks: readonly Network[] | undefined): boolean {
  const bit = (bytes: Uint8Array, i: number) => bytes[i >> 3]! >> (7 - i % 8) & 1;
  return networks?.some(({ bytes, prefixLength }) => {
    if (bytes.length !== address.length) return false;
    for (let i = prefixLength - 1; i >= 0; i--) if (bit(bytes, i) !== bit(address, i)) return false;
    return true;
  }) ?? true;
}

function sourceOf(packet: Uint8Array): Uint8Array {
  return packet[0]! >> 4 === 4 ? packet.subarray(12, 16) : packet.subarray(8, 24);
}

function destinationOf(packet: Uint8Array): Uint8Array {
  return packet[0]! >> 4 === 4 ? packet.subarray(16, 20) : packet.subarray(24, 40);
}

/** ICMP redirects and router advertisements. */
function isOfRouters(packet: Uint8Array): boolean {
  if (packet[0]! >> 4 === 6) return packet[6] === 58 && [134, 137].includes(packet[40]!);
  const isFirst = (wordAt(packet, 6) & 0x1fff) === 0;
  return packet[9] === 1 && isFirst && packet[(packet[0]! & 15) * 4] === 5;
}

/** An error of ICMP that does not quote a packet to these networks. */
function isAboutOthers(packet: Uint8Array, networks: readonly Network[] | undefined): boolean {
  const isIpv4 = packet[0]! >> 4 === 4;
  const isFirst = !isIpv4 || (wordAt(packet, 6) & 0x1fff) === 0;
  const icmp = packet.subarray(isIpv4 ? (packet[0]! & 15) * 4 : 40);
  const isIcmp = packet[isIpv4 ? 9 : 6] === (isIpv4 ? 1 : 58) && isFirst && icmp.length > 0;
  const isError = isIpv4 ? [3, 4, 11, 12].includes(icmp[0]!) : icmp[0]! < 128;
  const quoted = isIpv4 ? icmp.subarray(24, 28) : icmp.subarray(32, 48);
  const isWhole = quoted.length === (isIpv4 ? 4 : 16);
  return networks !== undefined && isIcmp && isError && !(isWhole && isWithin(quoted, networks));
}

function withoutPrefix(bytes: Uint8Array, prefix: Uint8Array): Uint8Array | undefined {
  const isThere = equalBytes(prefix, bytes.subarray(0, prefix.length));
  return isThere ? bytes.subarray(prefix.length) : undefined;
}

/** With the checksum that was left open. */
function summed(packet: Uint8Array, start: number, offset: number): Uint8Array {
  const copy = packet.slice();
  const checksum = ~onesComplementSum(packet.subarray(start)) & 0xffff || 0xffff;
  copy.set([checksum >> 8, checksum & 0xff], start + offset);
  return copy;
}

/** What a batch was made of. */
interface Told {
  what: string;
  bytes: Uint8Array[];
}

function fail(what: string, told: readonly Told[]): never {
  const all = told.map(({ what, bytes }) => `${what}: ${bytes.map(toHex).join(" ")}`);
  throw new Error(`${what}, of\n${all.join("\n")}`);
}

function idOf(n: number): Uint8Array {
  return new Uint8Array(8).fill(0xa0 + n);
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

// --- sockets

const { symbols } = Deno.dlopen("libc.so.6", {
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // family, type, protocol, fds
});

function socketPair(): Fd[] {
  const fds = new Int32Array(2);
  check("socketpair", symbols.socketpair(...SEQPACKET, new Uint8Array(fds.buffer)));
  return [...fds].map((fd) => new Fd(fd));
}

function send(fd: Fd, { vnet, packet }: SuperPacket): void {
  const bytes = concatBytes(vnet, packet) as Uint8Array<ArrayBuffer>;
  check("write", libc().write(fd.fd, bytes, BigInt(bytes.length)));
}

const NAME = new Uint8Array(28);
const NAME_LENGTH = new Uint8Array(4);

function receiveAll(fd: number, buffer: Uint8Array<ArrayBuffer>): Uint8Array[] {
  const all = [];
  for (;;) {
    const size = BigInt(buffer.length);
    const length = Number(libc().recvfrom(fd, buffer, size, MSG_DONTWAIT, NAME, NAME_LENGTH));
    if (length < 0) return all;
    all.push(buffer.slice(0, length));
  }
}
