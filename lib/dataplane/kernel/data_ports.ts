/**
 * Extra ports: a socket of this program's each, and once it carries data the kernel's, with a raw socket
 * beside it as the main one has.
 */
import { type Endpoint, familyOf } from "../../addr.ts";
import type { Datagram, SendDatagram } from "../../edges.ts";
import { GretunError } from "../../errors.ts";
import { closeFouPort, type FouPlace, usesFouPort } from "../../links/mod.ts";
import { endpointOf, sockAddrOf } from "../../linux/mod.ts";
import type { ExtraPort, PlaneOptions } from "../plane.ts";
import { type Kernel, KernelPort } from "./port.ts";

export interface DataPortOptions extends Pick<PlaneOptions, "onDatagram" | "portFlag"> {
  ipproto: number;
  signalling: NonNullable<PlaneOptions["signalling"]>;
}

export class DataPorts implements Disposable {
  readonly #kernel: Kernel;
  readonly #options: DataPortOptions;
  readonly #open = new Map<number, DataPort>();
  /** By link: ports that carry data, or did before it went elsewhere. */
  readonly #carrying = new Map<string, number>();
  /** Closed here while a link used them: the kernel's are open until it has moved or is gone. */
  readonly #left = new Set<number>();

  constructor(kernel: Kernel, options: DataPortOptions) {
    this.#kernel = kernel;
    this.#options = options;
  }

  open(): ExtraPort {
    const udp = this.#kernel.host.openUdp({ port: 0 }, (bytes, source) => {
      const datagram = { bytes: bytes.slice(), from: endpointOf(source) };
      this.#options.onDatagram(datagram, udp.port);
    });
    return this.#add(udp.port, {
      send: (bytes, to, ttl) => {
        if (familyOf(to.ip) === 4) udp.send(bytes, sockAddrOf(to), ttl);
      },
      [Symbol.dispose]: () => udp[Symbol.dispose](),
    });
  }

  #add(port: number, socket: Socket, isCarrying = false): DataPort {
    const extra = new DataPort(port, socket, isCarrying, () => this.#open.delete(port));
    this.#open.set(port, extra);
    return extra;
  }

  /** The link's; undefined once it is closed. */
  of(id: string): ExtraPort | undefined {
    const port = this.#carrying.get(id);
    return port === undefined ? undefined : this.#open.get(port);
  }

  /**
   * Has an extra port carry the link's data. `name` is called before it is there, so that the next
   * run closes it if this one is killed.
   */
  carry(id: string, port: number, name: () => void): void {
    const extra = this.#open.get(port);
    if (!extra) throw new GretunError(`port ${port} is closed`, "Find another path");
    const before = this.#carrying.get(id);
    if (before !== undefined && before !== port) this.#open.get(before)?.[Symbol.dispose]();
    this.#carrying.set(id, port);
    name();
    extra.carry(() => this.#openCarrying(port));
  }

  /** An earlier run had it carry the link's data. */
  adopt(id: string, port: number): void {
    try {
      this.#add(port, this.#openCarrying(port), true);
      this.#carrying.set(id, port);
    } catch {
      // Somebody else has it by now: the link finds another path.
    }
  }

  /** Of a link that is gone. */
  close(id: string): void {
    this.of(id)?.[Symbol.dispose]();
    this.#carrying.delete(id);
    this.sweep();
  }

  /** Links have moved: closes what none of them uses any more. */
  sweep(): void {
    for (const port of this.#left) {
      if (closeFouPort(this.#kernel, this.#place(port))) this.#left.delete(port);
    }
  }

  [Symbol.dispose](): void {
    for (const port of [...this.#open.values()]) port[Symbol.dispose]();
  }

  #openCarrying(port: number): Socket {
    const { onDatagram, ...options } = this.#options;
    const opened = KernelPort.open(this.#kernel, {
      ...options,
      ...this.#place(port),
      onDatagram: (datagram: Datagram) => onDatagram(datagram, port),
    });
    return {
      send: opened.send,
      [Symbol.dispose]: () => {
        opened[Symbol.dispose]();
        const links = this.#kernel.rtnl.links();
        if (links.some((link) => usesFouPort(link, port, 4))) this.#left.add(port);
      },
    };
  }

  #place(port: number): FouPlace {
    return { port, family: 4, ipproto: this.#options.ipproto };
  }
}

interface Socket extends Disposable {
  send: SendDatagram;
}

/** One of them. */
class DataPort implements ExtraPort {
  readonly port: number;
  readonly #onClose: () => void;
  #socket: Socket | undefined;
  #isCarrying: boolean;

  constructor(port: number, socket: Socket, isCarrying: boolean, onClose: () => void) {
    this.port = port;
    this.#socket = socket;
    this.#isCarrying = isCarrying;
    this.#onClose = onClose;
  }

  readonly send = (bytes: Uint8Array, to: Endpoint, ttl?: number): void =>
    this.#socket?.send(bytes, to, ttl);

  /** Once: `open` is called when the port is free. When it throws, the port stays closed. */
  carry(open: () => Socket): void {
    if (this.#isCarrying) return;
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
    this.#socket = open();
    this.#isCarrying = true;
  }

  [Symbol.dispose](): void {
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
    this.#onClose();
  }
}
