/** Packets in threads of their own: this one makes links, and gets what is no data of any. */
import type { Clock } from "../../edges.ts";
import type { Engine } from "../../engine/mod.ts";
import type { Host } from "../../host/mod.ts";
import {
  type DataCodec,
  type ExtraPort,
  PLANE_DROPS,
  PLANE_REFUSALS,
  type PlaneRefusal,
  type PlaneThreads,
  type WantedLink,
} from "../plane.ts";
import type { PacketPath, PathDevice, PathOptions } from "./path.ts";
import { Revival } from "./revival.ts";

export type OpenEngine = NonNullable<Host["openEngine"]>;

/** What packets look like, and who wants to know whose have come. */
export type EngineCodec = Pick<DataCodec, "heard"> & Required<Pick<DataCodec, "encapsulation">>;

export interface EngineWorld {
  openEngine: OpenEngine;
  clock: Clock;
}

const HEARD_GAP_MS = 500;

export class EnginePath implements PacketPath {
  readonly #engine: Engine;
  readonly #revival: Revival;
  readonly #clock: Clock;
  readonly #codec: EngineCodec;
  /** By the engine's numbers. */
  readonly #wanted = new Map<number, WantedLink>();
  /** Packets, by the same. */
  readonly #heard = new Map<number, number>();
  #listening: Disposable | undefined;

  /** `onTooBig`: the way of this link's packets has become narrower. Throws `SystemError`. */
  constructor(
    { port, bind, allowFragments = false, signalling, onDatagram, onFault }: PathOptions,
    codec: EngineCodec,
    { openEngine, clock }: EngineWorld,
    onTooBig: (link: WantedLink) => void,
  ) {
    this.#clock = clock;
    this.#codec = codec;
    this.#revival = new Revival(clock, () => this.#engine.restart(), onFault);
    this.#engine = openEngine({
      ...{ port, encapsulation: codec.encapsulation, allowFragments, ...(bind ? { bind } : {}) },
      control: signalling ?? { kind: "patterns", any: [] },
      onControl: (bytes, from, localPort) => {
        const isMain = localPort === this.#engine.port;
        onDatagram({ bytes, from }, isMain ? undefined : localPort);
      },
      onTooBig: (link) => {
        const wanted = this.#wanted.get(link);
        if (wanted) onTooBig(wanted);
      },
      onFailed: (reason) => this.#revival.ended(reason),
    });
    if (codec.heard) this.#listen();
  }

  #listen(): void {
    this.#listening = this.#clock.timer(HEARD_GAP_MS, () => {
      this.#listen();
      for (const [id, wanted] of this.#wanted) {
        const heard = this.#engine.heard(id);
        if (heard !== (this.#heard.get(id) ?? 0)) this.#codec.heard?.(wanted.id);
        this.#heard.set(id, heard);
      }
    });
  }

  get port(): number {
    return this.#engine.port;
  }

  get families() {
    return this.#engine.families;
  }

  readonly send: PacketPath["send"] = (bytes, to, ttl) =>
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

  openDevice(ifname: string): PathDevice {
    const id = this.#engine.addLink(ifname);
    return {
      name: ifname,
      set: (wanted, mtu) => {
        this.#wanted.set(id, wanted);
        this.#engine.setLink(id, { ...wanted, mtu });
      },
      [Symbol.dispose]: () => {
        this.#wanted.delete(id);
        this.#heard.delete(id);
        this.#engine.removeLink(id);
      },
    };
  }

  refused(): Map<PlaneRefusal, number> {
    const drops = this.#engine.drops();
    const found = PLANE_REFUSALS.flatMap((reason) => {
      const count = reason in drops ? drops[reason as keyof typeof drops] : 0;
      return count > 0 ? [[reason, count] as const] : [];
    });
    return new Map(found);
  }

  threads(): PlaneThreads {
    const drops = this.#engine.drops();
    return {
      features: this.#engine.features,
      drops: new Map(PLANE_DROPS.map((reason) => [reason, drops[reason]])),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#revival[Symbol.dispose]();
    this.#listening?.[Symbol.dispose]();
    return this.#engine[Symbol.asyncDispose]();
  }
}
