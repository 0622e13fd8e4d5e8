/** A spoke's codec takes nothing that does not come from its hub. */
import { equalSockAddrs, type SockAddr, sockAddrOf } from "../../linux/mod.ts";
import type { DataCodec } from "../plane.ts";
import type { SpokeCore } from "./spoke_core.ts";

export class FromHub implements DataCodec {
  readonly overheadBytes: number;
  readonly #codec: DataCodec;
  readonly #core: SpokeCore;
  #hub: SockAddr;

  constructor(codec: DataCodec, core: SpokeCore) {
    this.overheadBytes = codec.overheadBytes;
    this.#codec = codec;
    this.#core = core;
    this.#hub = sockAddrOf(core.hub);
  }

  /** The hub is elsewhere. */
  follow(): void {
    this.#hub = sockAddrOf(this.#core.hub);
  }

  encode(name: string, inner: Uint8Array): Uint8Array | undefined {
    return this.#codec.encode(name, inner);
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    if (equalSockAddrs(source, this.#hub)) return this.#codec.decode(bytes, source);
    this.#core.refused("wrong-address");
    return undefined;
  }
}
