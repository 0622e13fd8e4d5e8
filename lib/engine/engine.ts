/**
 * The user-space data path: TUN devices on one side, UDP sockets on the other, and threads that move
 * packets between them, however many links there are: one, and a second for packets out once there is
 * something to do. The main thread says what links there are and gets what is not data; packets do
 * not wait for it.
 */
import { type Cidr, type Endpoint, type Family, familyOf, type Ip } from "../addr.ts";
import { systemClock } from "../edges.ts";
import { GretunError } from "../errors.ts";
import {
  type BulkTun,
  BulkUdpSocket,
  Epoll,
  openBulkTun,
  openFamilies,
  openNothing,
  parseSockaddr,
  retire,
  type Signalling,
  sockAddrOf,
  SystemError,
  writeBulkTun,
} from "../linux/mod.ts";
import {
  type Change,
  type Drop,
  DROPS,
  type Encapsulation,
  type LinkSeal,
  type LinkSpec,
  MAX_LINKS,
  type Report,
  Shared,
  type WorkerStart,
} from "./messages.ts";
import { networkOf } from "./tables.ts";
import { IN_TAG } from "./tags.ts";

export interface EngineOptions {
  /** 0: the kernel chooses. */
  port: number;
  bind?: Ip;
  encapsulation: Encapsulation;
  /** Own identifier of jtunnel. */
  ownId?: Uint8Array;
  /** What is for `onControl` where it is no data of a link. */
  control: Signalling | "all";
  /** Not for this path: a socket of its own takes it. */
  without?: Signalling;
  /** Datagrams that are too large for the way may be cut up. */
  allowFragments: boolean;
  onControl: (bytes: Uint8Array, from: Endpoint, localPort: number) => void;
  /** Gets datagrams that are neither; absent: they are dropped. */
  onStranger?: (bytes: Uint8Array, from: Endpoint) => void;
  /** A sealed datagram was taken: the session's first, or one from elsewhere than the path leads. */
  onSession?: (link: number, session: Uint8Array, from: Endpoint) => void;
  /** A datagram did not fit the way that this link's packets take. */
  onTooBig: (link: number) => void;
  /** A thread has ended by itself: packets of one direction are lost until {@link Engine.restart}. */
  onFailed: (reason: string) => void;
}

export interface EngineLink {
  mtu: number;
  remote?: Endpoint;
  /** Of an open extra port; absent: the main one. */
  localPort?: number;
  keys?: { ikey: number; okey: number };
  /** jtunnel's identifier of the far end. */
  farId?: Uint8Array;
  seal?: LinkSeal;
  /** Inner addresses that the far end may have; absent: all. */
  sources?: readonly Cidr[];
  /** Inner addresses that the far end may reach here; absent: all. */
  destinations?: readonly Cidr[];
}

/** What of the kernel's help is used. */
export interface EngineFeatures {
  /** The kernel cuts and joins outer datagrams. */
  segments: boolean;
  /** Super-packets of UDP pass through devices; undefined before the first device. */
  udpSuperPackets: boolean | undefined;
}

interface Thread {
  index: number;
  worker: Worker;
  changes: MessagePort;
  /** Outlives the worker, with all that it waits for. */
  epoll: Epoll;
  ended: PromiseWithResolvers<void>;
  hasFailed: boolean;
}

interface Device extends BulkTun {
  spec?: LinkSpec;
}

/** If nothing has needed it by then, see {@link Engine.start}. */
const START_AFTER_MS = 150;
const LOOK_MS = 250;
/** How often threads are looked at that are to do something at once. */
const THREAD_LOOK_MS = 2;
/** In that time; as much as 10 Mbit/s in datagrams of their own, and some 100 Mbit/s in joined ones. */
const BUSY_READS = 250;

export class Engine implements AsyncDisposable {
  readonly #options: EngineOptions;
  readonly #shared = new Shared();
  readonly #epoll = new Epoll();
  #starting: number | undefined;
  /** Takes all packets as long as it is alone. */
  #in: Thread | undefined;
  /** For packets out. */
  #out: Thread | undefined;
  /** Where devices wait to be read. */
  #outEpoll: Epoll = this.#epoll;
  /** Until there are both threads. */
  #looking: number | undefined;
  #handingOver: Promise<void> | undefined;
  #reads = 0;
  /** Both by number; numbers are used again. */
  readonly #sockets: (BulkUdpSocket | undefined)[] = [];
  readonly #devices: (Device | undefined)[] = [];
  readonly #nothing = openNothing();
  /** To be closed when no thread uses the number any more. */
  #retired: { fd: Disposable; version: number }[] = [];
  readonly families: readonly Family[];
  #isClosed = false;

  /** Throws `SystemError`. */
  static open(options: EngineOptions): Engine {
    const sockets = openSockets(options);
    try {
      return new Engine(options, sockets);
    } catch (error) {
      for (const socket of sockets) socket[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(options: EngineOptions, sockets: readonly BulkUdpSocket[]) {
    this.#options = options;
    this.families = sockets.map(({ family }) => family);
    for (const socket of sockets) this.#addSocket(socket);
    this.#starting = setTimeout(() => this.start(), START_AFTER_MS);
  }

  /** The first thread, if it is not there yet. This one stands still for 30 ms until it is. */
  start(): void {
    if (this.#in || this.#isClosed) return;
    clearTimeout(this.#starting);
    this.#in = this.#startThread(0, this.#epoll);
    this.#tellAll(this.#in);
    this.#looking = setInterval(() => this.#lookWhetherBusy(), LOOK_MS);
  }

  /** Each thread costs the memory of a program of its own, and a moment of this one's time to start. */
  #lookWhetherBusy(): void {
    const reads = this.#shared.reads[0]!;
    if (((reads - this.#reads) | 0) >= BUSY_READS) this.#split();
    this.#reads = reads;
  }

  #split(): void {
    clearInterval(this.#looking);
    this.#out = this.#startThread(1, new Epoll());
    this.#tellAll(this.#out);
    this.#handingOver = this.#handOver(this.#out.epoll);
  }

  /**
   * Packets out pass to the second thread once it runs, and the first one has left its round: two must not
   * count one session's datagrams at a time.
   */
  async #handOver(epoll: Epoll): Promise<void> {
    const first = Atomics.load(this.#shared.versions, 0);
    if (!await this.#comesTrue(() => this.#hasTaken(1, first))) return;
    const handed = [...this.#devices.entries()].flatMap(([id, device]) =>
      device && letGo(this.#epoll, device.fd.fd) ? [{ id, device }] : []
    );
    this.#outEpoll = epoll;
    // When it takes the first, it may have devices to read yet that its wait has found before.
    for (const _round of [1, 2]) {
      const version = this.#announce();
      const hasLeft = () => this.#in!.hasFailed || this.#hasTaken(0, version);
      if (!await this.#comesTrue(hasLeft)) return;
    }
    for (const { id, device } of handed) {
      if (this.#devices[id] === device) epoll.add(device.fd.fd, id);
    }
  }

  /** Waits for what threads do; false: all has ended before. */
  async #comesTrue(isTrue: () => boolean): Promise<boolean> {
    while (!this.#isClosed && !isTrue()) await systemClock.sleep(THREAD_LOOK_MS);
    return !this.#isClosed;
  }

  /** Whether the thread of that index has taken that version of its tables. */
  #hasTaken(index: number, version: number): boolean {
    return Atomics.load(this.#shared.versions, 1 + index) - version >= 0;
  }

  get port(): number {
    return this.#sockets[0]!.port;
  }

  get features(): EngineFeatures {
    return {
      segments: this.#sockets[0]!.segments,
      udpSuperPackets: this.#devices.find((device) => device)?.cutsUdp,
    };
  }

  /** From the main port, unless told; a datagram that cannot be sent is lost. */
  send(bytes: Uint8Array, to: Endpoint, { ttl, localPort }: SendOptions = {}): void {
    if (this.#isClosed) return;
    const socket = this.#socketFor(to, localPort);
    if (socket !== undefined) this.#sockets[socket]!.send(bytes, to, ttl);
  }

  /** Opens a free port of IPv4 and gives its number. Throws `SystemError`. */
  openPort(): number {
    const { bind, allowFragments } = this.#options;
    const bound = bind && familyOf(bind) === 4 ? { bind } : {};
    const socket = BulkUdpSocket.open({ family: 4, port: 0, allowFragments, ...bound });
    this.#addSocket(socket);
    return socket.port;
  }

  /** Links that use it carry nothing until they are told another. */
  closePort(port: number): void {
    const id = this.#sockets.findIndex((socket, i) =>
      i >= this.families.length && socket?.port === port
    );
    const socket = this.#sockets[id];
    if (!socket) return;
    this.#sockets[id] = undefined;
    this.#retire(socket, this.#epoll, { kind: "close-socket", id });
  }

  /**
   * Makes the device of a link that carries nothing yet, and gives the link's number. Throws
   * `GretunError`.
   */
  addLink(ifname: string): number {
    const id = freeNumber(this.#devices);
    const { fd, cutsUdp } = openBulkTun(ifname);
    this.#devices[id] = { fd, cutsUdp };
    this.#shared.heard[id] = 0;
    this.setLink(id, { mtu: 0 });
    this.#outEpoll.add(fd.fd, id);
    this.start();
    return id;
  }

  setLink(id: number, link: EngineLink): void {
    const device = this.#devices[id];
    if (!device) return;
    const { mtu, remote, localPort, keys, farId, seal, sources, destinations } = link;
    const socket = remote && this.#socketFor(remote, localPort);
    const spec: LinkSpec = {
      ...{ id, device: device.fd.fd, cutsUdp: device.cutsUdp, mtu },
      ...(socket === undefined ? {} : { path: { socket, to: sockAddrOf(remote!) } }),
      ...(keys && { keys }),
      ...(farId && { farId }),
      ...(seal && { seal }),
      ...(sources && { sources: sources.map(networkOf) }),
      ...(destinations && { destinations: destinations.map(networkOf) }),
    };
    device.spec = spec;
    this.#post(linkChange(spec));
  }

  /** Hands a packet of the link to the kernel. */
  inject(id: number, packet: Uint8Array): void {
    const device = this.#devices[id];
    if (device) writeBulkTun(device.fd, packet);
  }

  /** The device is gone when this returns. */
  removeLink(id: number): void {
    const device = this.#devices[id];
    if (!device) return;
    this.#devices[id] = undefined;
    this.#retire(device.fd, this.#outEpoll, { kind: "unlink", id });
  }

  /** Starts threads that ended by themselves again, with all links as they are. */
  restart(): void {
    if (this.#isClosed) return;
    if (this.#out?.hasFailed) this.#out = this.#renew(this.#out);
    if (this.#in?.hasFailed) this.#in = this.#renew(this.#in);
  }

  /** Packets received since the link was made, modulo 2^32. */
  heard(id: number): number {
    return Atomics.load(this.#shared.heard, id) >>> 0;
  }

  drops(): Record<Drop, number> {
    const { drops } = this.#shared;
    const count = (i: number) => drops[i]! + drops[DROPS.length + i]!;
    return Object.fromEntries(DROPS.map((reason, i) => [reason, count(i)])) as Record<Drop, number>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#starting);
    clearInterval(this.#looking);
    for (const id of this.#devices.keys()) this.removeLink(id);
    this.#post({ kind: "stop" });
    await this.#handingOver;
    await Promise.all(this.#threads().map(({ ended }) => ended.promise));
    for (const { worker, changes, epoll } of this.#threads()) {
      worker.terminate();
      changes.close();
      epoll[Symbol.dispose]();
    }
    this.#epoll[Symbol.dispose]();
    for (const { fd } of this.#retired) fd[Symbol.dispose]();
    for (const socket of this.#sockets) socket?.[Symbol.dispose]();
    this.#nothing[Symbol.dispose]();
  }

  #threads(): Thread[] {
    return [this.#in, this.#out].filter((thread) => thread !== undefined);
  }

  #renew({ index, worker, changes, epoll }: Thread): Thread {
    worker.terminate();
    changes.close();
    const thread = this.#startThread(index, epoll);
    // What the dead one was told and did not take is part of it.
    this.#tellAll(thread);
    return thread;
  }

  #tellAll({ changes, epoll }: Thread): void {
    for (const [id, socket] of this.#sockets.entries()) {
      if (socket) changes.postMessage(socketChange(id, socket));
    }
    for (const device of this.#devices) {
      if (device?.spec) changes.postMessage(linkChange(device.spec));
    }
    // It may have begun before it was told everything, and would not look for the rest.
    Atomics.add(this.#shared.versions, 0, 1);
    epoll.wake();
  }

  #startThread(index: number, epoll: Epoll): Thread {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    const { port1: changes, port2 } = new MessageChannel();
    const { encapsulation, ownId, control } = this.#options;
    const start: WorkerStart = {
      ...{ index, epoll: epoll.handles, encapsulation, control, changes: port2 },
      meetsStrangers: this.#options.onStranger !== undefined,
      shared: this.#shared.buffer,
      ...(ownId && { ownId }),
    };
    const ended = Promise.withResolvers<void>();
    const thread: Thread = { index, worker, changes, epoll, ended, hasFailed: false };
    worker.onmessage = ({ data }: MessageEvent<Report>) => this.#onReport(thread, data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#onReport(thread, { kind: "failed", reason: event.message });
    };
    worker.postMessage(start, [port2]);
    return thread;
  }

  #onReport(thread: Thread, report: Report): void {
    switch (report.kind) {
      case "control":
        this.#shared.taken("control");
        return this.#onControl(report.bytes, report.from, report.socket);
      case "stranger":
        this.#shared.taken("stranger");
        if (!this.#isClosed) this.#options.onStranger?.(report.bytes, parseSockaddr(report.from));
        return;
      case "session":
        this.#shared.taken("control");
        if (this.#isClosed) return;
        return this.#options.onSession?.(report.link, report.id, parseSockaddr(report.from));
      case "too-big":
        this.#shared.taken("control");
        if (!this.#isClosed) this.#options.onTooBig(report.link);
        return;
      case "failed":
        thread.ended.resolve();
        if (thread.hasFailed) return;
        thread.hasFailed = true;
        if (!this.#isClosed) this.#options.onFailed(report.reason);
        return;
      case "stopped":
        return thread.ended.resolve();
      default:
        report satisfies never;
    }
  }

  #onControl(bytes: Uint8Array, from: Uint8Array, id: number): void {
    const socket = this.#sockets[id];
    if (this.#isClosed || !socket) return;
    this.#options.onControl(bytes, parseSockaddr(from), socket.port);
  }

  #socketFor(to: Endpoint, localPort?: number): number | undefined {
    const family = familyOf(to.ip);
    const id = this.#sockets.findIndex((socket, i) =>
      socket?.family === family &&
      (localPort === undefined ? i < this.families.length : socket.port === localPort)
    );
    return id < 0 ? undefined : id;
  }

  #addSocket(socket: BulkUdpSocket): void {
    const free = this.#sockets.indexOf(undefined);
    const id = free < 0 ? this.#sockets.length : free;
    this.#sockets[id] = socket;
    this.#post(socketChange(id, socket));
    this.#epoll.add(socket.fd, IN_TAG + id);
  }

  /** Tells both threads; each takes it before its next round. */
  #post(change: Change): number {
    for (const { changes } of this.#threads()) changes.postMessage(change);
    const version = this.#announce();
    this.#closeRetired();
    return version;
  }

  /** The threads take what they were told, and say so by this version. */
  #announce(): number {
    const version = Atomics.add(this.#shared.versions, 0, 1) + 1;
    for (const { epoll } of this.#threads()) epoll.wake();
    return version;
  }

  /** A thread may be using the descriptor at this very moment. */
  #retire(fd: Disposable & { readonly fd: number }, waiter: Epoll, change: Change): void {
    letGo(waiter, fd.fd);
    retire(fd.fd, this.#nothing.fd);
    const version = this.#post(change);
    this.#retired.push({ fd, version });
  }

  #closeRetired(): void {
    const isTaken = (version: number) =>
      this.#threads().every(({ index }) => this.#hasTaken(index, version));
    for (const { fd } of this.#retired.filter(({ version }) => isTaken(version))) {
      fd[Symbol.dispose]();
    }
    this.#retired = this.#retired.filter(({ version }) => !isTaken(version));
  }
}

/** What it is for those who use it. */
export type PacketEngine = Pick<Engine, keyof Engine>;

/** For one more link. Throws `GretunError`: the tables of the threads have room for so many. */
export function freeNumber(links: readonly unknown[]): number {
  const free = links.indexOf(undefined);
  if (free >= 0) return free;
  if (links.length < MAX_LINKS) return links.length;
  throw new GretunError(
    `the user-space data plane carries ${MAX_LINKS} links and no more`,
    "Use a kernel with FOU and GRE, or let a policy hide peers that need not be reached",
  );
}

/** Whether it was waited for: a thread lets go of a device that somebody deleted. */
function letGo(epoll: Epoll, fd: number): boolean {
  try {
    epoll.remove(fd);
    return true;
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}

interface SendOptions {
  ttl?: number;
  localPort?: number;
}

function socketChange(id: number, { fd, family, port, segments }: BulkUdpSocket): Change {
  return { kind: "socket", socket: { id, fd, family, port, segments } };
}

function linkChange(link: LinkSpec): Change {
  return { kind: "link", link };
}

function openSockets({ port, bind, without, allowFragments }: EngineOptions): BulkUdpSocket[] {
  return openFamilies(bind, port, (family, ownPort) => {
    const more = { ...(bind ? { bind } : {}), ...(without ? { without } : {}) };
    return BulkUdpSocket.open({ family, port: ownPort, allowFragments, ...more });
  });
}
