/** UDP ports besides a data plane's main one: see {@link ExtraPort}. */
import { type Endpoint, familyOf } from "../addr.ts";
import type { SendDatagram } from "../edges.ts";
import type { Host } from "../host/mod.ts";
import { type SockAddr, sockAddrOf } from "../linux/mod.ts";
import type { ExtraPort } from "./plane.ts";

export interface Socket extends Disposable {
  send: SendDatagram;
}

export type OnExtraDatagram = (bytes: Uint8Array, source: SockAddr, localPort: number) => void;

export class ExtraPorts implements Disposable {
  readonly #host: Host;
  readonly #onDatagram: OnExtraDatagram;
  readonly #open = new Map<number, ReplaceablePort>();

  /** `onDatagram` gets whatever arrives. */
  constructor(host: Host, onDatagram: OnExtraDatagram) {
    this.#host = host;
    this.#onDatagram = onDatagram;
  }

  open(): ExtraPort {
    const udp = this.#host.openUdp({ port: 0 }, (bytes, source) => {
      this.#onDatagram(bytes, source, udp.port);
    });
    const { port } = udp;
    const socket: Socket = {
      send: (bytes, to, ttl) => {
        if (familyOf(to.ip) === 4) udp.send(bytes, sockAddrOf(to), ttl);
      },
      [Symbol.dispose]: () => udp[Symbol.dispose](),
    };
    return this.#add(new ReplaceablePort(port, socket, () => this.#open.delete(port)));
  }

  /** A port that carries data already, which `socket` owns. */
  adopt(port: number, socket: Socket): ExtraPort {
    const extra = new ReplaceablePort(port, undefined, () => this.#open.delete(port));
    extra.replace(() => socket);
    return this.#add(extra);
  }

  #add(extra: ReplaceablePort): ReplaceablePort {
    this.#open.set(extra.port, extra);
    return extra;
  }

  get(port: number): ReplaceablePort | undefined {
    return this.#open.get(port);
  }

  [Symbol.dispose](): void {
    for (const port of [...this.#open.values()]) port[Symbol.dispose]();
  }
}

/** A port whose socket can be exchanged for what else owns that port. */
export class ReplaceablePort implements ExtraPort {
  readonly port: number;
  readonly #onClose: () => void;
  #socket: Socket | undefined;
  #isReplaced = false;

  constructor(port: number, socket: Socket | undefined, onClose: () => void) {
    this.port = port;
    this.#socket = socket;
    this.#onClose = onClose;
  }

  readonly send = (bytes: Uint8Array, to: Endpoint, ttl?: number): void =>
    this.#socket?.send(bytes, to, ttl);

  /** Once: `open` is called when the port is free. When it throws, the port stays closed. */
  replace(open: () => Socket): void {
    if (this.#isReplaced) return;
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
    this.#socket = open();
    this.#isReplaced = true;
  }

  [Symbol.dispose](): void {
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
    this.#onClose();
  }
}
