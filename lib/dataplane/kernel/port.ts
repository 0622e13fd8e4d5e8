/** One family's half of a UDP port: the kernel's, for data, and a raw socket beside it. */
import type { Family, Ip } from "../../addr.ts";
import type { Datagram, SendDatagram } from "../../edges.ts";
import type { Host } from "../../host/mod.ts";
import { openFouPort } from "../../links/mod.ts";
import type { Signalling } from "../../linux/mod.ts";
import type { Fou, RtNetlink } from "../../netlink.ts";

export interface KernelPortOptions {
  port: number;
  family: Family;
  /** IP protocol of what UDP carries. */
  ipproto: number;
  portFlag: string;
  bind?: Ip;
  signalling: Signalling;
  onDatagram: (datagram: Datagram) => void;
}

/** What the kernel owns, and how it is reached. */
export interface Kernel {
  host: Host;
  rtnl: RtNetlink;
  fou: Fou;
}

export class KernelPort implements Disposable {
  readonly family: Family;
  readonly send: SendDatagram;
  readonly #stack: DisposableStack;

  /** Throws what the kernel says, and `GretunError` when the port is somebody else's. */
  static open({ host, rtnl, fou }: Kernel, options: KernelPortOptions): KernelPort {
    using stack = new DisposableStack();
    const { port, family, ipproto, portFlag, bind, signalling, onDatagram } = options;
    // Links of IPIP with alternative local addresses receive on those.
    const local = bind && ipproto !== IPPROTO_IPIP ? { local: bind } : {};
    stack.use(openFouPort({ rtnl, fou }, { port, family, ipproto, ...local }, portFlag));
    const raw = stack.use(host.openRawUdp(port, {
      family,
      signalling,
      ...(bind ? { bind } : {}),
      checksum: hasChecksum(signalling),
    }, onDatagram));
    return new KernelPort(family, raw.send.bind(raw), stack.move());
  }

  private constructor(family: Family, send: SendDatagram, stack: DisposableStack) {
    this.family = family;
    this.send = send;
    this.#stack = stack;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

const IPPROTO_IPIP = 4;

/** What goes beside bare IPv4 has none either: so it is by the protocols that use it. */
export function hasChecksum(signalling: Signalling): boolean {
  return signalling.kind === "patterns";
}
