/** Extra ports that carry data: the kernel's, with a raw socket beside each as the main one has. */
import type { Datagram } from "../../edges.ts";
import { GretunError } from "../../errors.ts";
import { closeFouPort, type FouPlace, usesFouPort } from "../../links/mod.ts";
import { endpointOf } from "../../linux/mod.ts";
import type { ExtraPort, PlaneOptions } from "../plane.ts";
import { ExtraPorts, type Socket } from "../ports.ts";
import { type Kernel, KernelPort } from "./port.ts";

export interface DataPortOptions extends Pick<PlaneOptions, "onDatagram" | "portFlag"> {
  ipproto: number;
  signalling: NonNullable<PlaneOptions["signalling"]>;
}

export class DataPorts implements Disposable {
  readonly #kernel: Kernel;
  readonly #options: DataPortOptions;
  readonly #extra: ExtraPorts;
  /** By link: ports that carry data, or did before it went elsewhere. */
  readonly #carrying = new Map<string, number>();
  /** Closed here while a link used them: the kernel's are open until it has moved or is gone. */
  readonly #left = new Set<number>();

  constructor(kernel: Kernel, options: DataPortOptions) {
    this.#kernel = kernel;
    this.#options = options;
    this.#extra = new ExtraPorts(kernel.host, (bytes, source, localPort) => {
      options.onDatagram({ bytes: bytes.slice(), from: endpointOf(source) }, localPort);
    });
  }

  open(): ExtraPort {
    return this.#extra.open();
  }

  /** The link's; undefined once it is closed. */
  of(id: string): ExtraPort | undefined {
    const port = this.#carrying.get(id);
    return port === undefined ? undefined : this.#extra.get(port);
  }

  /**
   * Has an extra port carry the link's data. `name` is called before it is there, so that the next
   * run closes it if this one is killed.
   */
  carry(id: string, port: number, name: () => void): void {
    const extra = this.#extra.get(port);
    if (!extra) throw new GretunError(`port ${port} is closed`, "Find another path");
    const before = this.#carrying.get(id);
    if (before !== undefined && before !== port) this.#extra.get(before)?.[Symbol.dispose]();
    this.#carrying.set(id, port);
    name();
    extra.replace(() => this.#openCarrying(port));
  }

  /** An earlier run had it carry the link's data. */
  adopt(id: string, port: number): void {
    try {
      this.#extra.adopt(port, this.#openCarrying(port));
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
    this.#extra[Symbol.dispose]();
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
