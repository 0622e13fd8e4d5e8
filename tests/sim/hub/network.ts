/** Hosts in memory and NATs between them: a datagram arrives a moment after it was sent, or never. */
import { type Endpoint, formatEndpoint, type Ip, parseIp } from "../../../lib/addr.ts";
import type { Clock, Datagram } from "../../../lib/edges.ts";
import type { SignalPort, Tun, UdpPort } from "../../../lib/host/mod.ts";
import {
  endpointOf,
  isSignalling,
  type RawUdpOptions,
  type SockAddr,
  type UdpSocketOptions,
} from "../../../lib/linux/mod.ts";
import { FakeHost } from "../../fakes/host.ts";
import { memoryLocks } from "../../fakes/locks.ts";

const DELAY_MS = 10;
const FIRST_MAPPED_PORT = 30_000;

/** Endpoint-independent mapping, address- and port-dependent filtering (RFC 4787). */
export class SimNat {
  readonly ip: Ip;
  #nextPort = FIRST_MAPPED_PORT;
  /** By the inner endpoint. */
  readonly #mapped = new Map<string, { port: number; inner: Endpoint; seen: Set<string> }>();

  constructor(ip: string) {
    this.ip = parseIp(ip);
  }

  /** Every mapping is forgotten, and none comes back as it was. */
  restart(): void {
    this.#mapped.clear();
  }

  outwards(inner: Endpoint, to: Endpoint): Endpoint {
    const key = formatEndpoint(inner);
    const mapping = this.#mapped.get(key) ?? { port: this.#nextPort++, inner, seen: new Set() };
    this.#mapped.set(key, mapping);
    mapping.seen.add(formatEndpoint(to));
    return { ip: this.ip, port: mapping.port };
  }

  inwards(from: Endpoint, port: number): Endpoint | undefined {
    const mapping = [...this.#mapped.values()].find((each) => each.port === port);
    return mapping?.seen.has(formatEndpoint(from)) ? mapping.inner : undefined;
  }
}

export class SimHost extends FakeHost {
  readonly nat: SimNat | undefined;
  ip: Ip;
  #locks = memoryLocks(1);
  readonly #network: SimNetwork;

  constructor(network: SimNetwork, ip: string, nat?: SimNat) {
    super();
    this.#network = network;
    this.nat = nat;
    this.ip = parseIp(ip);
    this.setSource(this.ip);
  }

  override get locks() {
    return this.#locks;
  }

  /** As when another network gives it another address. */
  move(ip: string): void {
    this.ip = parseIp(ip);
    this.setSource(this.ip);
    this.networkChanged();
  }

  override openUdp(
    options: UdpSocketOptions,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpPort {
    const socket = super.openUdp(options, onDatagram);
    return {
      ...socket,
      send: (bytes, to) => this.send(socket.port, bytes, endpointOf(to)),
    };
  }

  override openRawUdp(
    port: number,
    options: RawUdpOptions,
    onDatagram: (datagram: Datagram) => void,
  ): SignalPort {
    const socket = super.openRawUdp(port, options, onDatagram);
    return { ...socket, send: (bytes, to) => this.send(port, bytes, to) };
  }

  override openTun(name: string, onPacket: (packet: Uint8Array) => void): Tun {
    const traffic = { rxPackets: 0, txPackets: 0 };
    this.kernel.traffic.set(name, traffic);
    const tun = super.openTun(name, (packet) => {
      traffic.txPackets++;
      onPacket(packet);
    });
    const write = tun.write.bind(tun);
    tun.write = (packet) => {
      traffic.rxPackets++;
      return write(packet);
    };
    return tun;
  }

  /** As a program without a socket in the way sends it. */
  send(port: number, bytes: Uint8Array, to: Endpoint): void {
    this.#network.send(this, { ip: this.ip, port }, bytes.slice(), to);
  }

  arrive(port: number, bytes: Uint8Array, from: Endpoint): void {
    const { raw, udp } = this.socketsOf(port);
    const signalling = raw?.options.signalling;
    if (raw && signalling && isSignalling(signalling, bytes)) raw.receive(bytes, from);
    else udp?.receive(bytes, from);
  }

  /** Everything that a killed program held. */
  closeAll(): void {
    this.#locks = memoryLocks(1);
    for (const socket of [...this.udp, ...this.raw]) {
      if (socket.isClosed) continue;
      socket[Symbol.dispose]();
      this.kernel.programs.delete(socket.port);
    }
    for (const tun of this.tuns) tun[Symbol.dispose]();
  }
}

export class SimNetwork {
  readonly #clock: Clock;
  readonly #hosts: SimHost[] = [];
  /** Says of each datagram whether it is lost. */
  isLost: (from: Endpoint, to: Endpoint) => boolean = () => false;
  /** All that was sent, as the outside sees it. */
  readonly seen: { bytes: Uint8Array; from: Endpoint; to: Endpoint }[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  host(ip: string, nat?: SimNat): SimHost {
    const host = new SimHost(this, ip, nat);
    this.#hosts.push(host);
    return host;
  }

  send(host: SimHost, inner: Endpoint, bytes: Uint8Array, to: Endpoint): void {
    const from = host.nat ? host.nat.outwards(inner, to) : inner;
    this.forge(from, bytes, to);
  }

  /** From wherever. */
  forge(from: Endpoint, bytes: Uint8Array, to: Endpoint): void {
    this.seen.push({ bytes, from, to });
    if (this.isLost(from, to)) return;
    this.#clock.timer(DELAY_MS, () => this.#arrive(from, bytes, to));
  }

  #arrive(from: Endpoint, bytes: Uint8Array, to: Endpoint): void {
    for (const host of this.#hosts) {
      const at = host.nat?.ip === to.ip ? host.nat.inwards(from, to.port) : to;
      if (!at || at.ip !== host.ip || host.nat && host.nat.ip !== to.ip) continue;
      host.arrive(at.port, bytes, from);
    }
  }
}
