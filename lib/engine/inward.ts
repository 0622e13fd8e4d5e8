/** From UDP to TUN devices: receives, tells data from signalling, checks, joins, and writes. */
import { bulk, isSignalling, type Signalling } from "../linux/bulk.ts";
import type { Arena } from "./arena.ts";
import { type Cipher, SEALED_TAG } from "./cipher.ts";
import type { HeaderReader, TakenSession } from "./encapsulation.ts";
import { type Joined, Joiner, MAX_PIECES } from "./join.ts";
import type { WorkerTables } from "./links.ts";
import type { Drop, SocketSpec } from "./messages.ts";
import { versionOf, VNET_HEADER } from "./packet.ts";
import type { Sum } from "./sum.ts";
import { Iovecs, Msghdr } from "./vectors.ts";

const MAX_DATAGRAM = 65_536;
const READ_ROOM = 4 * MAX_DATAGRAM;
/** Receives from one socket before others have their turn. */
const MAX_READS = 64;
const SOCKADDR_LENGTH = 28;
const CONTROL_LENGTH = 64;
const TELL_GAP_MS = 250;
const MSG_DONTWAIT = 0x40;
const SOL_UDP = 17;
const UDP_GRO = 104;

export interface InwardEvents {
  onDrop(reason: Drop): void;
  onHeard(link: number): void;
  /** A view that is valid during the call. */
  onControl(bytes: Uint8Array, from: Uint8Array, socket: number): void;
  /** As above; neither control nor of a link. */
  onStranger(bytes: Uint8Array, from: Uint8Array): void;
  /** The first datagram of a session, or one from elsewhere; told again after a while. */
  onSession(session: TakenSession, from: Uint8Array): void;
}

export interface InwardTools {
  arena: Arena;
  sum: Sum;
  tables: WorkerTables;
  headers: HeaderReader;
  /** Where datagrams are sealed. */
  cipher: Cipher | undefined;
  control: Signalling | "all";
  meetsStrangers: boolean;
  nowMs: () => number;
  events: InwardEvents;
}

export class Inward {
  readonly #tools: InwardTools;
  readonly #joiner: Joiner;
  readonly #receiving: Msghdr;
  readonly #receiveIovecs: Iovecs;
  readonly #writeIovecs: Iovecs;
  readonly #roomAt: number;
  readonly #nameAt: number;
  readonly #controlAt: number;

  constructor(tools: InwardTools) {
    this.#tools = tools;
    const { arena, sum } = tools;
    this.#joiner = new Joiner(arena, sum, (packet) => this.#write(packet));
    this.#receiveIovecs = new Iovecs(arena, 1);
    this.#writeIovecs = new Iovecs(arena, 1 + MAX_PIECES);
    this.#nameAt = arena.room(SOCKADDR_LENGTH);
    this.#controlAt = arena.room(CONTROL_LENGTH);
    const rooms = { iovecs: this.#receiveIovecs, nameAt: this.#nameAt, controlAt: this.#controlAt };
    this.#receiving = new Msghdr(arena, rooms);
    this.#receiving.setIovecs(0, 1);
    this.#roomAt = arena.room(READ_ROOM);
  }

  /** Takes what the socket has, within bounds; how often it has read. */
  serve(socket: SocketSpec): number {
    let filled = 0;
    let reads = 0;
    for (; reads < MAX_READS; reads++) {
      if (filled + MAX_DATAGRAM > READ_ROOM) {
        this.#joiner.flush();
        filled = 0;
      }
      const at = this.#roomAt + filled;
      const length = this.#receive(socket, at);
      // "Would block", or an ICMP error of an earlier datagram, which is then taken.
      if (length < 0) break;
      this.#takeAll(socket, at, length);
      filled = (filled + length + 63) & ~63;
    }
    this.#joiner.flush();
    return reads;
  }

  #receive(socket: SocketSpec, at: number): number {
    this.#receiveIovecs.set(0, at, MAX_DATAGRAM);
    this.#receiving.setNameLength(SOCKADDR_LENGTH);
    this.#receiving.setControlLength(CONTROL_LENGTH);
    return bulk().recvmsg(socket.fd, this.#receiving.bytes, MSG_DONTWAIT);
  }

  #takeAll(socket: SocketSpec, at: number, length: number): void {
    const size = this.#segmentSize() || length;
    this.#tools.headers.from(this.#nameAt, this.#receiving.nameLength);
    let taken = 0;
    do {
      const part = Math.min(size, length - taken);
      this.#take(socket, at + taken, part);
      taken += part;
    } while (taken < length);
  }

  /** Of joined datagrams; 0 where there is one. */
  #segmentSize(): number {
    if (this.#receiving.controlLength < 20) return 0;
    const { view } = this.#tools.arena;
    const isGro = view.getUint32(this.#controlAt + 8, true) === SOL_UDP &&
      view.getUint32(this.#controlAt + 12, true) === UDP_GRO;
    return isGro ? view.getInt32(this.#controlAt + 16, true) : 0;
  }

  #take(socket: SocketSpec, at: number, length: number): void {
    const { headers, tables, arena, events } = this.#tools;
    const id = headers.find(at, length);
    const link = id < 0 ? undefined : tables.links[id];
    if (!link) return this.#takeOther(socket, { at, length }, id === -2);
    const { innerAt, session } = headers;
    if (session && !this.#open(session, at, length)) return;
    const inner = length - (innerAt - at) - (session ? SEALED_TAG : 0);
    const version = versionOf(arena.bytes, innerAt, inner);
    if (version === 0) return events.onDrop("malformed");
    const refusal = link.inner.refusesIn(arena, innerAt, inner, version);
    if (refusal) return events.onDrop(refusal);
    events.onHeard(id);
    this.#joiner.take(link.spec.device, innerAt, inner, link.spec.cutsUdp);
  }

  #open(session: TakenSession, at: number, length: number): boolean {
    const { headers, arena, events, cipher, nowMs } = this.#tools;
    const isAtHome = headers.isFromRemote(session.link);
    const refusal = isAtHome || session.anySource
      ? cipher!.open(session, arena, at, length)
      : "wrong-address";
    if (refusal) {
      events.onDrop(refusal);
      return false;
    }
    const isNews = !isAtHome || session.toldMs === -Infinity;
    if (isNews && nowMs() - session.toldMs >= TELL_GAP_MS) {
      session.toldMs = nowMs();
      events.onSession(session, this.#from());
    }
    return true;
  }

  #from(): Uint8Array {
    const { bytes } = this.#tools.arena;
    return bytes.subarray(this.#nameAt, this.#nameAt + this.#receiving.nameLength);
  }

  #takeOther(
    socket: SocketSpec,
    { at, length }: { at: number; length: number },
    isData: boolean,
  ): void {
    const { arena, control, events, meetsStrangers } = this.#tools;
    const bytes = arena.bytes.subarray(at, at + length);
    if (control === "all" || isSignalling(control, bytes)) {
      events.onControl(bytes, this.#from(), socket.id);
    } else if (meetsStrangers) events.onStranger(bytes, this.#from());
    else events.onDrop(isData ? "wrong-address" : "malformed");
  }

  #write(packet: Joined): void {
    const iovecs = this.#writeIovecs;
    iovecs.set(0, packet.vnet, VNET_HEADER);
    for (let i = 0; i < packet.count; i++) iovecs.set(i + 1, packet.at[i]!, packet.length[i]!);
    const written = bulk().writev(packet.device, iovecs.bytes, packet.count + 1);
    if (written < 0) this.#tools.events.onDrop("device");
  }
}
