/**
 * Packets one by one through this thread, and a codec that keeps state of its own. Signalling goes
 * to raw sockets beside the data's: a flood of it fills their queues, not the one that data waits in.
 */
import { type Family, familyOf, formatEndpoint } from "../../addr.ts";
import type { Datagram } from "../../edges.ts";
import type { Host, SignalPort, Tun, UdpPort } from "../../host/mod.ts";
import {
  endpointOf,
  isSignalling,
  openFamilies,
  type SockAddr,
  sockAddrOf,
} from "../../linux/mod.ts";
import { fillOpenChecksum } from "../../open_checksum.ts";
import { InnerGuard, isIpPacket, udpDestination } from "../guard/inner.ts";
import { hasChecksum } from "../kernel/port.ts";
import type { DataCodec, ExtraPort, PlaneRefusal, WantedLink } from "../plane.ts";
import { ExtraPorts } from "../ports.ts";
import type { PacketPath, PathDevice, PathOptions } from "./path.ts";

interface Carried {
  wanted: WantedLink;
  device: Tun;
  to: SockAddr;
  guard: InnerGuard;
}

/** Of one family. */
interface Sockets extends Disposable {
  port: number;
  family: Family;
  data: UdpPort;
  signalling?: SignalPort;
}

export class CodecPath implements PacketPath {
  readonly port: number;
  readonly families: readonly Family[];
  readonly #options: PathOptions;
  readonly #host: Host;
  readonly #codec: DataCodec;
  readonly #sockets: readonly Sockets[];
  readonly #extra: ExtraPorts;
  readonly #links = new Map<string, Carried>();
  /** Of links: where outer packets go. */
  #remotes = new Set<string>();
  readonly #refused = new Map<PlaneRefusal, number>();
  readonly #stack: DisposableStack;

  /** Throws `SystemError`. */
  constructor(options: PathOptions, codec: DataCodec, host: Host) {
    using stack = new DisposableStack();
    this.#options = options;
    this.#host = host;
    this.#codec = codec;
    const { bind, port } = options;
    this.#sockets = openFamilies(bind, port, (family, own) => this.#openFamily(family, own));
    for (const sockets of this.#sockets) stack.use(sockets);
    this.port = this.#sockets[0]!.port;
    this.families = this.#sockets.map(({ family }) => family);
    this.#extra = stack.use(
      new ExtraPorts(host, (bytes, source, port) => this.#takeExtra(bytes, source, port)),
    );
    this.#stack = stack.move();
  }

  #openFamily(family: Family, port: number): Sockets {
    const { bind, signalling, allowFragments = false, onDatagram } = this.#options;
    const bound = { family, ...(bind ? { bind } : {}) };
    const without = signalling ? { without: signalling } : {};
    using stack = new DisposableStack();
    const data = stack.use(this.#host.openUdp(
      { ...bound, ...without, port, allowFragments },
      (bytes, source) => this.#take(bytes, source),
    ));
    const opened = { family, port: data.port, data };
    const raw = signalling && { ...bound, signalling, checksum: hasChecksum(signalling) };
    const onSignal = (datagram: Datagram) => onDatagram(datagram);
    const beside = raw && stack.use(this.#host.openRawUdp(data.port, raw, onSignal));
    const all = stack.move();
    const close = { [Symbol.dispose]: () => all.dispose() };
    return { ...opened, ...close, ...(beside ? { signalling: beside } : {}) };
  }

  readonly send: PacketPath["send"] = (bytes, to, ttl) => {
    const sockets = this.#socketsTo(familyOf(to.ip));
    if (sockets?.signalling) sockets.signalling.send(bytes, to, ttl);
    else sockets?.data.send(bytes, sockAddrOf(to), ttl);
  };

  #socketsTo(family: Family): Sockets | undefined {
    return this.#sockets.find((sockets) => sockets.family === family);
  }

  openPort(): ExtraPort {
    return this.#extra.open();
  }

  openDevice(ifname: string): PathDevice {
    let carried: Carried | undefined;
    const device = this.#host.openTun(ifname, (inner) => carried && this.#forward(carried, inner));
    return {
      name: device.name,
      set: (wanted) => {
        const guard = new InnerGuard(wanted);
        carried = { wanted, device, to: sockAddrOf(wanted.remote), guard };
        this.#links.set(wanted.id, carried);
        this.#noteRemotes();
      },
      [Symbol.dispose]: () => {
        if (carried) this.#links.delete(carried.wanted.id);
        this.#noteRemotes();
        device[Symbol.dispose]();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stack.dispose();
  }

  #noteRemotes(): void {
    const remotes = [...this.#links.values()].map(({ wanted: { remote } }) => remote);
    this.#remotes = new Set(remotes.map(formatEndpoint));
  }

  refused(): Map<PlaneRefusal, number> {
    return new Map(this.#refused);
  }

  #refuse(reason: PlaneRefusal): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  /** A packet of ours that carries others: routes would send it through itself. */
  #isOuter(packet: Uint8Array): boolean {
    const isOurs = (port: number) => port === this.port || this.#extra.get(port) !== undefined;
    const to = udpDestination(packet, isOurs);
    return to !== undefined && this.#remotes.has(formatEndpoint(to));
  }

  #forward({ wanted: { id, remote, localPort }, to, guard }: Carried, inner: Uint8Array): void {
    if (!isIpPacket(inner)) return;
    const reason = this.#isOuter(inner) ? "own-tunnel" : guard.refusesOut(inner);
    if (reason) return this.#refuse(reason);
    const bytes = this.#codec.encode(id, inner);
    if (!bytes) return;
    if (localPort !== undefined) this.#extra.get(localPort)?.send(bytes, remote);
    else this.#socketsTo(familyOf(remote.ip))?.data.send(bytes, to);
  }

  #takeExtra(bytes: Uint8Array, source: SockAddr, localPort: number): void {
    const { signalling, onDatagram } = this.#options;
    if (!signalling || !isSignalling(signalling, bytes)) return this.#take(bytes, source);
    onDatagram({ bytes: bytes.slice(), from: endpointOf(source) }, localPort);
  }

  #take(bytes: Uint8Array, source: SockAddr): void {
    const packet = this.#codec.decode(bytes, source);
    if (typeof packet === "string") return this.#refuse(packet);
    const carried = packet && this.#links.get(packet.id);
    if (!carried) return;
    const { inner } = packet;
    const reason = isIpPacket(inner) ? carried.guard.refusesIn(inner) : "not-ip";
    if (reason) return this.#refuse(reason);
    fillOpenChecksum(inner);
    carried.device.write(inner);
  }
}
