/** A spoke's codec takes nothing that does not come from its hub. */
import { equalSockAddrs, type SockAddr, sockAddrOf } from "../../linux/mod.ts";
import type { DataCodec, ThreadCodec, WantedLink } from "../../dataplane/mod.ts";
import type { SpokeCore } from "./spoke_core.ts";

export class FromHub implements DataCodec {
  readonly threads?: ThreadCodec;
  readonly #codec: DataCodec;
  readonly #core: SpokeCore;
  #hub: SockAddr;

  constructor(codec: DataCodec, core: SpokeCore) {
    // Threads take what comes from the link's remote alone, which is the hub.
    if (codec.threads) this.threads = codec.threads;
    this.#codec = codec;
    this.#core = core;
    this.#hub = sockAddrOf(core.hub);
  }

  /** The hub is elsewhere. */
  follow(): void {
    this.#hub = sockAddrOf(this.#core.hub);
  }

  overheadBytes(link: Pick<WantedLink, "keys">): number {
    return this.#codec.overheadBytes(link);
  }

  setLink(link: WantedLink): void {
    this.#codec.setLink?.(link);
  }

  removeLink(id: string): void {
    this.#codec.removeLink?.(id);
  }

  encode(id: string, inner: Uint8Array): Uint8Array | undefined {
    return this.#codec.encode(id, inner);
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    if (equalSockAddrs(source, this.#hub)) return this.#codec.decode(bytes, source);
    this.#core.refused("wrong-address");
    return undefined;
  }
}
