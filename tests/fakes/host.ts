/**
 * A machine in memory: the kernel of `tunnel_kernel.ts`, sockets that record what is sent and are
 * handed what arrives, TUN devices, kernel files, and the nf_tables of `nft_kernel.ts`.
 */
import { type Endpoint, type Family, familyOf, type Ip, ipBytes } from "../../lib/addr.ts";
import { Reader } from "../../lib/bytes.ts";
import type { Datagram } from "../../lib/edges.ts";
import type { EngineOptions } from "../../lib/engine/mod.ts";
import type { Host, SignalPort, UdpPort } from "../../lib/host/mod.ts";
import {
  AF_INET,
  AF_INET6,
  endpointOf,
  type RawUdpOptions,
  type SockAddr,
  sockAddrOf,
  SystemError,
} from "../../lib/linux/mod.ts";
import type { Fou, RtNetlink } from "../../lib/netlink.ts";
import type { Nft } from "../../lib/nft/mod.ts";
import { type FakeUdpOptions, type Machine, MemoryEngine, type Tun } from "./engine.ts";
import { NftKernel } from "./nft_kernel.ts";
import { ERRNO, TunnelKernel } from "./tunnel_kernel.ts";

const FIRST_FREE_PORT = 40_000;

export interface Sent {
  bytes: Uint8Array;
  to: Endpoint;
  ttl?: number;
}

/** An open UDP or raw socket. */
export class FakeSocket<Options> implements Disposable {
  readonly sent: Sent[] = [];
  isClosed = false;
  readonly port: number;
  readonly options: Options;
  /** Hands in a datagram that arrives. */
  readonly receive: (bytes: Uint8Array, from: Endpoint) => void;

  constructor(
    port: number,
    options: Options,
    receive: (bytes: Uint8Array, from: Endpoint) => void,
  ) {
    this.port = port;
    this.options = options;
    this.receive = receive;
  }

  [Symbol.dispose](): void {
    this.isClosed = true;
  }
}

class FakeTun implements Tun {
  readonly written: Uint8Array[] = [];
  isClosed = false;
  readonly name: string;
  /** Hands in a packet that the kernel routes into the device. */
  readonly receive: (packet: Uint8Array) => void;
  readonly #onClose: () => void;

  constructor(name: string, receive: (packet: Uint8Array) => void, onClose: () => void) {
    this.name = name;
    this.receive = receive;
    this.#onClose = onClose;
  }

  write(packet: Uint8Array): boolean {
    this.written.push(packet.slice());
    return true;
  }

  [Symbol.dispose](): void {
    if (!this.isClosed) this.#onClose();
    this.isClosed = true;
  }
}

export class FakeHost implements Host, Machine {
  readonly kernel: TunnelKernel;
  /** All that were ever opened, in order. */
  readonly udp: FakeSocket<FakeUdpOptions>[] = [];
  readonly raw: FakeSocket<RawUdpOptions>[] = [];
  readonly tuns: FakeTun[] = [];
  readonly files = new Map<string, string>();
  readonly fileLinks = new Map<string, string>();
  /** Links that fill in checksums before they send. */
  readonly summing = new Set<string>();
  readonly nft = new NftKernel();
  hasTun = true;
  readonly #watchers = new Set<() => void>();
  #nextPort = FIRST_FREE_PORT;

  constructor(kernel = new TunnelKernel()) {
    this.kernel = kernel;
    this.setSource("192.0.2.10" as Ip);
    this.setSource("2001:db8::10" as Ip);
  }

  get locks() {
    return this.kernel.locks;
  }

  /** The address that packets to other hosts leave with. */
  setSource(ip: Ip): void {
    this.kernel.sources.set(familyOf(ip) === 4 ? AF_INET : AF_INET6, ipBytes(ip));
  }

  /** Tells of a change of links, addresses or routes. */
  networkChanged(): void {
    for (const onChange of this.#watchers) onChange();
  }

  /** Open sockets of that port. */
  socketsOf(port: number): { udp?: FakeSocket<FakeUdpOptions>; raw?: FakeSocket<RawUdpOptions> } {
    const udp = this.udp.find((s) => s.port === port && !s.isClosed);
    const raw = this.raw.find((s) => s.port === port && !s.isClosed);
    return { ...(udp ? { udp } : {}), ...(raw ? { raw } : {}) };
  }

  tun(name: string): FakeTun | undefined {
    return this.tuns.findLast((tun) => tun.name === name);
  }

  openRtNetlink(): RtNetlink {
    return this.kernel.openRtNetlink();
  }

  openFou(): Fou {
    return this.kernel.openFou();
  }

  setChecksumOffload(ifname: string, isOn: boolean): void {
    if (isOn) this.summing.delete(ifname);
    else this.summing.add(ifname);
  }

  openNft(): Nft {
    return this.nft.open();
  }

  loadModule(name: string): boolean {
    if (this.kernel.loadable.has(name)) this.kernel.modules.add(name);
    return this.kernel.modules.has(name);
  }

  watchNetwork(onChange: () => void): Disposable {
    this.#watchers.add(onChange);
    return { [Symbol.dispose]: () => this.#watchers.delete(onChange) };
  }

  watchTables(onChange: () => void): Disposable {
    return this.nft.watch(onChange);
  }

  readFile(path: string): string {
    const text = this.files.get(path);
    if (text === undefined) throw new SystemError(`open ${path}`, ERRNO.ENOENT);
    return text;
  }

  writeFile(path: string, text: string): void {
    this.files.set(path, text);
  }

  readLink(path: string): string | undefined {
    return this.fileLinks.get(path);
  }

  openUdp(
    options: FakeUdpOptions,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpPort {
    const port = options.port || this.#nextPort++;
    if (this.#isPortTaken(port, options.family ?? 4)) {
      throw new SystemError("bind", ERRNO.EADDRINUSE);
    }
    const socket = new FakeSocket(
      port,
      options,
      (bytes, from) => onDatagram(bytes, sockAddrOf(from)),
    );
    this.udp.push(socket);
    this.kernel.programs.set(port, "gretun");
    return {
      port,
      send: (bytes, to, ttl) => record(socket, bytes, endpointOf(to), ttl),
      [Symbol.dispose]: () => {
        socket[Symbol.dispose]();
        this.kernel.programs.delete(port);
      },
    };
  }

  #isPortTaken(port: number, family: Family): boolean {
    const isOpen = (socket: FakeSocket<FakeUdpOptions>) => socket.port === port && !socket.isClosed;
    const own = this.udp.filter(isOpen);
    if (own.length > 0) return own.some(({ options }) => (options.family ?? 4) === family);
    return this.kernel.programs.has(port) ||
      this.kernel.ports.some((attrs) => new Reader(attrs.get(1)!, "network").u16() === port);
  }

  openRawUdp(
    port: number,
    options: RawUdpOptions,
    onDatagram: (datagram: Datagram) => void,
  ): SignalPort {
    const socket = new FakeSocket(
      port,
      options,
      (bytes, from) => onDatagram({ bytes, from }),
    );
    this.raw.push(socket);
    const family = options.family ?? 4;
    return {
      send: (bytes, to, ttl) => {
        if (familyOf(to.ip) === family) record(socket, bytes, to, ttl);
      },
      [Symbol.dispose]: () => socket[Symbol.dispose](),
    };
  }

  openRawSender(port: number, family: 4 | 6): SignalPort {
    return this.openRawUdp(port, { family }, () => {});
  }

  openEngine(options: EngineOptions): MemoryEngine {
    return new MemoryEngine(this, options);
  }

  tryTun(): void {
    if (!this.hasTun) throw new SystemError("open /dev/net/tun", ERRNO.ENOENT);
  }

  openTun(name: string, onPacket: (packet: Uint8Array) => void): Tun {
    this.tryTun();
    this.kernel.addTun(name);
    const tun = new FakeTun(name, onPacket, () => this.kernel.removeLink(name));
    this.tuns.push(tun);
    return tun;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function record<T>(socket: FakeSocket<T>, bytes: Uint8Array, to: Endpoint, ttl?: number): void {
  socket.sent.push({ bytes: bytes.slice(), to, ...(ttl === undefined ? {} : { ttl }) });
}
