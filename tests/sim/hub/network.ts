/** Hosts whose kernels are those of the planes' tests, in the networks of the simulated world. */
import { type Endpoint, type Ip, parseIp } from "../../../lib/addr.ts";
import type { Datagram } from "../../../lib/edges.ts";
import type { SignalPort, UdpPort } from "../../../lib/host/mod.ts";
import {
  endpointOf,
  isSignalling,
  type RawUdpOptions,
  type SockAddr,
} from "../../../lib/linux/mod.ts";
import type { FakeUdpOptions, Tun } from "../../fakes/engine.ts";
import { FakeHost } from "../../fakes/host.ts";
import { memoryLocks } from "../../fakes/locks.ts";
import type { Wire } from "../world/kernel.ts";
import { Nat, PORT_RESTRICTED } from "../world/nat.ts";
import { Internet, Lan, type Station } from "../world/net.ts";
import type { Packet } from "../world/packet.ts";
import { Dice } from "../world/random.ts";
import type { SimTime } from "../world/time.ts";

const TTL = 64;
const GATEWAY = parseIp("192.168.0.1");

/** A local network behind a NAT. */
export interface HubSite {
  nat: Nat;
  lan: Lan;
}

export class SimHost extends FakeHost implements Station {
  ip: Ip;
  #locks = memoryLocks(1);
  readonly #wire: Wire & { stations: Map<Ip, Station> };
  readonly #gateway: Ip | undefined;

  constructor(wire: Wire & { stations: Map<Ip, Station> }, ip: Ip, gateway?: Ip) {
    super();
    this.#wire = wire;
    this.#gateway = gateway;
    this.ip = ip;
    this.#plugIn();
  }

  #plugIn(): void {
    this.setSource(this.ip);
    this.#wire.stations.set(this.ip, this);
  }

  override get locks() {
    return this.#locks;
  }

  /** As when another network gives it another address. */
  move(ip: string): void {
    this.#wire.stations.delete(this.ip);
    this.ip = parseIp(ip);
    this.#plugIn();
    this.networkChanged();
  }

  override openUdp(
    options: FakeUdpOptions,
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
    const from = { ip: this.ip, port };
    const packet = { kind: "udp", from, to, ttl: TTL, bytes: bytes.slice() } as const;
    this.#wire.transmit(packet, this.#gateway ?? to.ip);
  }

  receive(packet: Packet): void {
    if (packet.kind !== "udp") return;
    const { raw, udp } = this.socketsOf(packet.to.port);
    const signalling = raw?.options.signalling;
    const socket = raw && signalling && isSignalling(signalling, packet.bytes) ? raw : udp;
    socket?.receive(packet.bytes, packet.from);
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

/** The internet, which can be looked at, with hosts and NATs. */
export class SimNetwork extends Internet {
  /** Says of each datagram whether it is lost. */
  isLost: (from: Endpoint, to: Endpoint) => boolean = () => false;
  /** All that was sent, as the outside sees it. */
  readonly seen: { bytes: Uint8Array; from: Endpoint; to: Endpoint }[] = [];
  readonly #time: SimTime;
  readonly #dice = new Dice(1);

  constructor(time: SimTime) {
    super(time, new Dice(2));
    this.#time = time;
  }

  host(ip: Ip, site?: HubSite): SimHost {
    return site ? new SimHost(site.lan, ip, GATEWAY) : new SimHost(this, ip);
  }

  site(outer: Ip): HubSite {
    const lan = new Lan(this.#time, this.#dice.fork());
    const nat = new Nat({
      time: this.#time,
      dice: this.#dice.fork(),
      behaviour: { ...PORT_RESTRICTED, ports: "sequential" },
      inside: lan,
      outside: this,
      outer,
    });
    lan.stations.set(GATEWAY, nat);
    return { nat, lan };
  }

  override transmit(packet: Packet): void {
    if (packet.kind === "udp") {
      const { bytes, from, to } = packet;
      this.seen.push({ bytes, from, to });
      if (this.isLost(from, to)) return;
    }
    super.transmit(packet);
  }

  /** From wherever. */
  forge(from: Endpoint, bytes: Uint8Array, to: Endpoint): void {
    this.transmit({ kind: "udp", from, to, ttl: TTL, bytes });
  }
}
