/** Packets in threads of their own: this one makes links, and gets what is no data of any. */
import type { Family, Ip } from "../../addr.ts";
import type { Clock, SendDatagram } from "../../edges.ts";
import { type PacketEngine, refusesPacket } from "../../engine/mod.ts";
import type { Host } from "../../host/mod.ts";
import { type Signalling, type SockAddr, sockAddrOf } from "../../linux/mod.ts";
import { fillOpenChecksum } from "../../open_checksum.ts";
import { hasChecksum } from "../kernel/port.ts";
import {
  type DataCodec,
  type ExtraPort,
  PLANE_DROPS,
  PLANE_REFUSALS,
  type PlaneOptions,
  type PlaneRefusal,
  type PlaneThreads,
  type PlaneWorld,
  type WantedLink,
} from "../plane.ts";
import { Revival } from "./revival.ts";

/** A device that carries nothing until it is told for which link. */
export interface PathDevice extends Disposable {
  readonly name: string;
  set(link: WantedLink, mtu: number): void;
}

const NOTHING: Signalling = { kind: "patterns", any: [] };

interface Carried {
  wanted: WantedLink;
  mtu: number;
}

const HEARD_GAP_MS = 500;

export class EnginePath implements AsyncDisposable {
  readonly #engine: PacketEngine;
  /** Sockets for signalling, where it has some of its own. */
  readonly #signals: Disposable | undefined;
  readonly #revival: Revival;
  readonly #clock: Clock;
  readonly #codec: DataCodec;
  /** By the engine's numbers. */
  readonly #carried = new Map<number, Carried>();
  /** Packets, by the same. */
  readonly #heard = new Map<number, number>();
  /** Of packets that did not go through the threads. */
  readonly #refused = new Map<PlaneRefusal, number>();
  #listening: Disposable | undefined;

  /** `onTooBig`: the way of this link's packets has become narrower. Throws `SystemError`. */
  constructor(
    { port, bind, allowFragments = false, signalling, onDatagram, onFault }: PlaneOptions,
    codec: DataCodec,
    { host, clock }: PlaneWorld,
    onTooBig: (link: WantedLink) => void,
  ) {
    this.#clock = clock;
    this.#codec = codec;
    this.#revival = new Revival(clock, () => this.#engine.restart(), onFault);
    const { encapsulation, ownId, signalsApart } = codec;
    this.#engine = host.openEngine({
      ...{ port, encapsulation, allowFragments, ...(bind ? { bind } : {}) },
      ...(ownId && { ownId }),
      ...(signalsApart && signalling
        ? { without: signalling, control: NOTHING }
        : { control: signalling ?? NOTHING }),
      onControl: (bytes, from, localPort) => {
        const isMain = localPort === this.#engine.port;
        onDatagram({ bytes, from }, isMain ? undefined : localPort);
      },
      ...(codec.decode && { onStranger: (bytes, from) => this.#take(bytes, sockAddrOf(from)) }),
      onSession: (_link, session, from) => codec.onSession?.(session, sockAddrOf(from)),
      onTooBig: (link) => {
        const carried = this.#carried.get(link);
        if (carried) onTooBig(carried.wanted);
      },
      onFailed: (reason) => this.#revival.ended(reason),
    });
    try {
      this.#signals = signalsApart && signalling && openSignals(host, this.#engine, {
        ...(bind ? { bind } : {}),
        signalling,
        onDatagram,
      });
    } catch (error) {
      void this.#engine[Symbol.asyncDispose]();
      throw error;
    }
    if (codec.heard) this.#listen();
    codec.onChanged = (id) => this.#changed(id);
  }

  #changed(id: string): void {
    for (const [link, { wanted }] of this.#carried) if (wanted.id === id) this.#set(link);
  }

  #set(link: number): void {
    const { wanted, mtu } = this.#carried.get(link)!;
    this.#engine.setLink(link, { ...wanted, mtu, ...this.#codec.extras?.(wanted.id) });
  }

  /** A packet of no link, unless the codec knows better. */
  #take(bytes: Uint8Array, source: SockAddr): void {
    const packet = this.#codec.decode?.(bytes, source);
    if (!packet) return;
    for (const [link, { wanted }] of this.#carried) {
      if (wanted.id !== packet.id) continue;
      const { inner } = packet;
      const reason = refusesPacket(wanted, inner);
      if (reason) return void this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
      fillOpenChecksum(inner);
      return this.#engine.inject(link, inner);
    }
  }

  #listen(): void {
    this.#listening = this.#clock.timer(HEARD_GAP_MS, () => {
      this.#listen();
      for (const [id, { wanted }] of this.#carried) {
        const heard = this.#engine.heard(id);
        if (heard !== (this.#heard.get(id) ?? 0)) this.#codec.heard?.(wanted.id);
        this.#heard.set(id, heard);
      }
    });
  }

  get port(): number {
    return this.#engine.port;
  }

  get families(): readonly Family[] {
    return this.#engine.families;
  }

  /** Of signalling. */
  readonly send: SendDatagram = (bytes, to, ttl) =>
    this.#engine.send(bytes, to, ttl === undefined ? {} : { ttl });

  openPort(): ExtraPort {
    const localPort = this.#engine.openPort();
    return {
      port: localPort,
      send: (bytes, to, ttl) =>
        this.#engine.send(bytes, to, { localPort, ...(ttl === undefined ? {} : { ttl }) }),
      [Symbol.dispose]: () => this.#engine.closePort(localPort),
    };
  }

  /** Throws `SystemError`. */
  openDevice(ifname: string): PathDevice {
    const id = this.#engine.addLink(ifname);
    return {
      name: ifname,
      set: (wanted, mtu) => {
        this.#carried.set(id, { wanted, mtu });
        this.#set(id);
      },
      [Symbol.dispose]: () => {
        this.#carried.delete(id);
        this.#heard.delete(id);
        this.#engine.removeLink(id);
      },
    };
  }

  /** Packets, by reason. */
  refused(): Map<PlaneRefusal, number> {
    const drops = this.#engine.drops();
    const found = PLANE_REFUSALS.flatMap((reason) => {
      const inThreads = reason in drops ? drops[reason as keyof typeof drops] : 0;
      const count = inThreads + (this.#refused.get(reason) ?? 0);
      return count > 0 ? [[reason, count] as const] : [];
    });
    return new Map(found);
  }

  whileWaiting(): void {
    this.#engine.start();
  }

  threads(): PlaneThreads {
    const drops = this.#engine.drops();
    return {
      features: this.#engine.features,
      drops: new Map(PLANE_DROPS.map((reason) => [reason, drops[reason]])),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#signals?.[Symbol.dispose]();
    this.#revival[Symbol.dispose]();
    this.#listening?.[Symbol.dispose]();
    return this.#engine[Symbol.asyncDispose]();
  }
}

/** One for each family. Throws `SystemError`. */
function openSignals(
  host: Host,
  { port, families }: PacketEngine,
  { bind, signalling, onDatagram }: {
    bind?: Ip;
    signalling: Signalling;
    onDatagram: PlaneOptions["onDatagram"];
  },
): Disposable {
  using stack = new DisposableStack();
  for (const family of families) {
    const options = { ...(bind ? { bind } : {}), family, signalling };
    const checksum = hasChecksum(signalling);
    stack.use(host.openRawUdp(port, { ...options, checksum }, (datagram) => onDatagram(datagram)));
  }
  return stack.move();
}
