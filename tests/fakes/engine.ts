/**
 * The user-space data path of a machine in memory: tables, headers, checks and cipher of the engine,
 * one packet at a time and in the thread of the test.
 */
import { type Endpoint, type Family, familyOf } from "../../lib/addr.ts";
import { openAead } from "../../lib/engine/aead.ts";
import { Arena } from "../../lib/engine/arena.ts";
import { Cipher, SEALED_HEADER, SEALED_TAG } from "../../lib/engine/cipher.ts";
import {
  headerLength,
  HeaderReader,
  HeaderWriter,
  type TakenSession,
} from "../../lib/engine/encapsulation.ts";
import { freeNumber } from "../../lib/engine/engine.ts";
import { WorkerTables } from "../../lib/engine/links.ts";
import { type Change, MAX_LINKS } from "../../lib/engine/messages.ts";
import {
  type Drop,
  DROPS,
  type EngineLink,
  type EngineOptions,
  type PacketEngine,
} from "../../lib/engine/mod.ts";
import { versionOf } from "../../lib/engine/packet.ts";
import { networkOf } from "../../lib/engine/tables.ts";
import type { UdpPort } from "../../lib/host/mod.ts";
import {
  endpointOf,
  isSignalling,
  openFamilies,
  type Signalling,
  type SockAddr,
  sockAddrOf,
  type UdpSocketOptions,
} from "../../lib/linux/mod.ts";
import { fillOpenChecksum } from "../../lib/open_checksum.ts";

/** A device whose packets come to this process. */
export interface Tun extends Disposable {
  readonly name: string;
  /** Hands a packet to the kernel; false when it does not take it. */
  write(packet: Uint8Array): boolean;
}

export interface FakeUdpOptions extends UdpSocketOptions {
  /** Is dropped: another socket is for it. */
  without?: Signalling;
}

export interface Machine {
  openUdp(
    options: FakeUdpOptions,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpPort;
  openTun(name: string, onPacket: (packet: Uint8Array) => void): Tun;
}

interface Socket extends UdpPort {
  family: Family;
}

const CIPHER = new Cipher(await openAead());
const ROOM = 65_536 + SEALED_HEADER + SEALED_TAG;

export class MemoryEngine implements PacketEngine {
  readonly port: number;
  readonly families: readonly Family[];
  readonly features = { segments: false, udpSuperPackets: false };
  readonly #machine: Machine;
  readonly #options: EngineOptions;
  readonly #arena = new Arena(new ArrayBuffer(64 * MAX_LINKS + 3 * ROOM + 1024));
  readonly #rooms = {
    in: this.#arena.room(ROOM),
    source: this.#arena.room(64),
    out: this.#arena.room(ROOM),
    sealed: this.#arena.room(ROOM),
  };
  readonly #tables;
  readonly #reader;
  readonly #writer;
  readonly #sockets: (Socket | undefined)[] = [];
  readonly #devices: (Tun | undefined)[] = [];
  readonly #heard = new Map<number, number>();
  readonly #drops = Object.fromEntries(DROPS.map((drop) => [drop, 0])) as Record<Drop, number>;

  constructor(machine: Machine, options: EngineOptions) {
    this.#machine = machine;
    this.#options = options;
    const { encapsulation, ownId, bind } = options;
    this.#tables = new WorkerTables(this.#arena, encapsulation);
    this.#reader = new HeaderReader(this.#arena, encapsulation);
    this.#writer = new HeaderWriter(this.#arena, encapsulation, ownId);
    const sockets = openFamilies(bind, options.port, (family, port) => this.#open(family, port));
    this.port = sockets[0]!.port;
    this.families = sockets.map(({ family }) => family);
  }

  #open(family: Family, port: number): Socket {
    const { bind, without, allowFragments } = this.#options;
    const id = this.#sockets.includes(undefined)
      ? this.#sockets.indexOf(undefined)
      : this.#sockets.length;
    const udp = this.#machine.openUdp({
      ...{ family, port, allowFragments },
      ...(bind && familyOf(bind) === family && { bind }),
      ...(without && { without }),
    }, (bytes, source) => this.#receive(id, bytes, source));
    const socket = { ...udp, family };
    this.#sockets[id] = socket;
    this.#tell({ kind: "socket", socket: { id, fd: id, family, port: udp.port, segments: false } });
    return socket;
  }

  #tell(change: Exclude<Change, { kind: "stop" }>): void {
    this.#tables.apply(change);
    this.#reader.setLinks(this.#tables.specs());
  }

  start(): void {}
  restart(): void {}

  // --- sockets

  send(bytes: Uint8Array, to: Endpoint, { ttl, localPort = this.port }: {
    ttl?: number;
    localPort?: number;
  } = {}): void {
    const socket = this.#sockets[this.#socketFor(to, localPort)];
    socket?.send(bytes, sockAddrOf(to), ttl);
  }

  #socketFor(to: Endpoint, localPort: number): number {
    const family = familyOf(to.ip);
    return this.#sockets.findIndex((one) => one?.family === family && one.port === localPort);
  }

  openPort(): number {
    return this.#open(4, 0).port;
  }

  closePort(port: number): void {
    const id = this.#sockets.findIndex((socket) => socket?.port === port);
    this.#sockets[id]?.[Symbol.dispose]();
    this.#sockets[id] = undefined;
    this.#tell({ kind: "close-socket", id });
  }

  // --- links

  addLink(ifname: string): number {
    const id = freeNumber(this.#devices);
    this.#devices[id] = this.#machine.openTun(ifname, (packet) => this.#forward(id, packet));
    this.setLink(id, { mtu: 0 });
    return id;
  }

  setLink(id: number, link: EngineLink): void {
    const { mtu, remote, localPort = this.port, keys, farId, seal, sources, destinations } = link;
    const socket = remote ? this.#socketFor(remote, localPort) : -1;
    const spec = {
      ...{ id, device: id, cutsUdp: false, mtu },
      ...(socket >= 0 && { path: { socket, to: sockAddrOf(remote!) } }),
      ...{ ...(keys && { keys }), ...(farId && { farId }), ...(seal && { seal }) },
      ...(sources && { sources: sources.map(networkOf) }),
      ...(destinations && { destinations: destinations.map(networkOf) }),
    };
    this.#tell({ kind: "link", link: spec });
  }

  removeLink(id: number): void {
    this.#devices[id]?.[Symbol.dispose]();
    this.#devices[id] = undefined;
    this.#heard.delete(id);
    this.#tell({ kind: "unlink", id });
  }

  inject(id: number, packet: Uint8Array): void {
    this.#devices[id]?.write(packet);
  }

  heard(id: number): number {
    return this.#heard.get(id) ?? 0;
  }

  drops(): Record<Drop, number> {
    return { ...this.#drops };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of this.#devices.keys()) this.removeLink(id);
    for (const socket of this.#sockets) socket?.[Symbol.dispose]();
  }

  // --- packets

  #drop(reason: Drop): void {
    this.#drops[reason]++;
  }

  #forward(id: number, packet: Uint8Array): void {
    const link = this.#tables.links[id];
    if (!link) return;
    const version = versionOf(packet, 0, packet.length);
    if (version === 0) return this.#drop("malformed");
    if (!this.#writer.carries(version)) return this.#drop("not-carried");
    const header = headerLength(this.#options.encapsulation, link.spec);
    const at = this.#rooms.out + SEALED_HEADER;
    this.#arena.bytes.set(packet, at);
    if (this.#tables.isOuter(at, packet.length, version)) return this.#drop("own-tunnel");
    const refusal = link.inner.refusesOut(this.#arena, at, version);
    if (refusal) return this.#drop(refusal);
    if (!link.socket) return this.#drop("no-path");
    const { id: socket } = link.socket;
    const to = link.spec.path!.to as SockAddr;
    if (link.session) {
      const pieces = [at, packet.length, 0, 0] as const;
      const length = CIPHER.seal(link.session, this.#arena, this.#rooms.sealed, pieces);
      return this.#sockets[socket]?.send(this.#read(this.#rooms.sealed, length), to);
    }
    this.#writer.write(at - header, version, link.okey);
    this.#sockets[socket]?.send(this.#read(at - header, header + packet.length), to);
  }

  #read(at: number, length: number): Uint8Array<ArrayBuffer> {
    return this.#arena.bytes.slice(at, at + length);
  }

  #receive(socket: number, bytes: Uint8Array, source: SockAddr): void {
    const { in: at, source: nameAt } = this.#rooms;
    this.#arena.bytes.set(source, nameAt);
    this.#arena.bytes.set(bytes, at);
    this.#reader.from(nameAt, source.length);
    const id = this.#reader.find(at, bytes.length);
    const link = id < 0 ? undefined : this.#tables.links[id];
    if (!link) return this.#takeOther(socket, bytes, source, id === -2);
    const { innerAt, session } = this.#reader;
    if (session && !this.#opens(session, bytes.length, source)) return;
    const length = bytes.length - (innerAt - at) - (session ? SEALED_TAG : 0);
    const version = versionOf(this.#arena.bytes, innerAt, length);
    if (version === 0) return this.#drop("malformed");
    const refusal = link.inner.refusesIn(this.#arena, innerAt, length, version);
    if (refusal) return this.#drop(refusal);
    this.#heard.set(id, this.heard(id) + 1);
    const inner = this.#read(innerAt, length);
    fillOpenChecksum(inner);
    this.inject(id, inner);
  }

  #opens(session: TakenSession, length: number, source: SockAddr): boolean {
    const isAtHome = this.#reader.isFromRemote(session.link);
    const refusal = isAtHome || session.anySource
      ? CIPHER.open(session, this.#arena, this.#rooms.in, length)
      : "wrong-address";
    if (refusal) {
      this.#drop(refusal);
      return false;
    }
    if (!isAtHome || session.toldMs === -Infinity) {
      session.toldMs = 0;
      this.#options.onSession?.(session.link, session.id, endpointOf(source));
    }
    return true;
  }

  #takeOther(socket: number, bytes: Uint8Array, source: SockAddr, isData: boolean): void {
    const { control, onControl, onStranger } = this.#options;
    const from = endpointOf(source);
    if (control === "all" || isSignalling(control, bytes)) {
      onControl(bytes.slice(), from, this.#sockets[socket]!.port);
    } else if (onStranger) onStranger(bytes.slice(), from);
    else this.#drop(isData ? "wrong-address" : "malformed");
  }
}
