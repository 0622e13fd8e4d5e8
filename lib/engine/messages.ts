/** What the main thread and the workers of the data path tell each other. */
import type { Family } from "../addr.ts";
import type { EpollHandles, Signalling } from "../linux/bulk.ts";
import type { Network } from "./tables.ts";

/** How inner packets travel in datagrams. */
export type Encapsulation = "gre" | "bare" | "jtunnel" | "sealed";

/** One end of a session whose datagrams are sealed. */
export interface SealedSession {
  /** 8 bytes. */
  id: Uint8Array;
  /** 32 bytes each. */
  sendKey: Uint8Array;
  receiveKey: Uint8Array;
  /** Else datagrams are readable, with a tag. */
  encrypt: boolean;
  /** Of its `SessionCounters`. */
  memory: SharedArrayBuffer;
}

/** How datagrams of a link are sealed. */
export interface LinkSeal {
  /** Absent: nothing is sent. */
  sending?: SealedSession;
  taking: readonly SealedSession[];
  /** Whether what is sealed well may come from elsewhere than the link's path leads. */
  anySource: boolean;
}

export interface LinkSpec {
  /** 0 and up; numbers of removed links are used again. */
  id: number;
  /** The TUN device's descriptor. */
  device: number;
  /** Whether super-packets of UDP come from and go to the device. */
  cutsUdp: boolean;
  mtu: number;
  /** A number of a {@link SocketSpec}, and a `sockaddr`; none: the link carries nothing. */
  path?: { socket: number; to: Uint8Array };
  /** GRE keys; absent: none on the wire. */
  keys?: { ikey: number; okey: number };
  /** jtunnel's identifier of the far end, 8 bytes. */
  farId?: Uint8Array;
  seal?: LinkSeal;
  /** Inner addresses that the far end may have; absent: all. */
  sources?: readonly Network[];
  /** Inner addresses that the far end may reach here; absent: all. */
  destinations?: readonly Network[];
}

export interface SocketSpec {
  /** 0 and up. */
  id: number;
  fd: number;
  family: Family;
  port: number;
  /** Whether the kernel cuts what is sent and joins what is received. */
  segments: boolean;
}

export type Change =
  | { kind: "socket"; socket: SocketSpec }
  | { kind: "close-socket"; id: number }
  | { kind: "link"; link: LinkSpec }
  | { kind: "unlink"; id: number }
  | { kind: "stop" };

export interface WorkerStart {
  /** 0 and up. */
  index: number;
  epoll: EpollHandles;
  encapsulation: Encapsulation;
  /** Own identifier of jtunnel. */
  ownId?: Uint8Array;
  /** What is for the main thread where it is no data of a link. */
  control: Signalling | "all";
  /** Whether the main thread wants datagrams that are neither control nor of a link. */
  meetsStrangers: boolean;
  shared: SharedArrayBuffer;
  /** Changes come here; looked at when the shared version has moved. */
  changes: MessagePort;
}

export type Report =
  | { kind: "control"; bytes: Uint8Array; from: Uint8Array; socket: number }
  | { kind: "stranger"; bytes: Uint8Array; from: Uint8Array }
  /** The first datagram of a session, or one from elsewhere than the link's path leads. */
  | { kind: "session"; link: number; id: Uint8Array; from: Uint8Array }
  /** A datagram did not fit the way: the link's MTU may be another. */
  | { kind: "too-big"; link: number }
  | { kind: "failed"; reason: string }
  | { kind: "stopped" };

/** Why packets were dropped; counted by each worker. */
export const DROPS = [
  "malformed",
  "wrong-address",
  "wrong-inner-address",
  "out-of-reach",
  "router-message",
  "not-for-peer",
  "own-tunnel",
  "replayed",
  "bad-tag",
  "not-carried",
  "no-path",
  "no-route",
  "too-big",
  "send-buffer",
  "device",
  "control-flood",
] as const;
export type Drop = typeof DROPS[number];

export const MAX_WORKERS = 2;
/** All tables have room for so many. */
export const MAX_LINKS = 4096;
/** Reports for the main thread that it has not taken yet; more are dropped. */
export const MAX_PENDING = { control: 256, stranger: 64 } as const;
export type Queue = keyof typeof MAX_PENDING;
const QUEUES: Queue[] = ["control", "stranger"];

/** Memory that all threads see. */
export class Shared {
  /** 0: version of the last change posted; 1 and up: last one that each worker has taken. */
  readonly versions: Int32Array;
  /** Reports on their way to the main thread, by queue: strangers leave others their room. */
  readonly #pending: Int32Array;
  /** Of each worker: what it has read from devices and sockets; wraps around. */
  readonly reads: Int32Array;
  /** Of each worker, by {@link DROPS}. */
  readonly drops: Float64Array;
  /** Packets received, of each link; wraps around. */
  readonly heard: Int32Array;

  constructor(readonly buffer: SharedArrayBuffer = new SharedArrayBuffer(Shared.#length)) {
    this.versions = new Int32Array(buffer, 0, 1 + MAX_WORKERS);
    this.#pending = new Int32Array(buffer, 32, QUEUES.length);
    this.reads = new Int32Array(buffer, 48, MAX_WORKERS);
    this.drops = new Float64Array(buffer, 64, MAX_WORKERS * DROPS.length);
    this.heard = new Int32Array(buffer, Shared.#heardAt, MAX_LINKS);
  }

  /** Whether there is room for one more report. */
  take(queue: Queue): boolean {
    const i = QUEUES.indexOf(queue);
    if (Atomics.load(this.#pending, i) >= MAX_PENDING[queue]) return false;
    Atomics.add(this.#pending, i, 1);
    return true;
  }

  taken(queue: Queue): void {
    Atomics.sub(this.#pending, QUEUES.indexOf(queue), 1);
  }

  static readonly #heardAt = 64 + MAX_WORKERS * DROPS.length * 8;
  static readonly #length = Shared.#heardAt + MAX_LINKS * 4;
}
