/** Extra ports that carry data: the kernel's, with a raw socket beside each as the main one has. */
import type { Datagram } from "../../edges.ts";
import { GretunError } from "../../errors.ts";
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

  close(id: string): void {
    this.of(id)?.[Symbol.dispose]();
    this.#carrying.delete(id);
  }

  [Symbol.dispose](): void {
    this.#extra[Symbol.dispose]();
  }

  #openCarrying(port: number): Socket {
    const { onDatagram, ...options } = this.#options;
    return KernelPort.open(this.#kernel, {
      ...options,
      ...{ port, family: 4 },
      onDatagram: (datagram: Datagram) => onDatagram(datagram, port),
    });
  }
}
