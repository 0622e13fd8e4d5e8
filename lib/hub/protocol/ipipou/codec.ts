/** How the user-space plane tells whose a bare IPv4 packet is where no threads carry it. */
import { endpointOf, type SockAddr } from "../../../linux/mod.ts";
import type { DataCodec, ThreadCodec } from "../../../dataplane/mod.ts";
import type { Refusal } from "../gretun/auth.ts";
import { BARE_OVERHEAD_BYTES, isBareIpv4 } from "./wire.ts";

/** By the endpoint that the link's packets come from. */
export class BareCodec implements DataCodec {
  readonly threads: ThreadCodec;
  /** Names by `IP PORT`; the owner keeps it. */
  readonly sources = new Map<string, string>();
  readonly #onHeard: (name: string) => void;
  readonly #onRefused: (reason: Refusal) => void;

  constructor(onHeard: (name: string) => void, onRefused: (reason: Refusal) => void) {
    this.#onHeard = onHeard;
    this.threads = { encapsulation: "bare", signalsApart: true, heard: onHeard };
    this.#onRefused = onRefused;
  }

  overheadBytes(): number {
    return BARE_OVERHEAD_BYTES;
  }

  encode(_name: string, inner: Uint8Array): Uint8Array | undefined {
    return isBareIpv4(inner) ? inner : undefined;
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    const { ip, port } = endpointOf(source);
    const name = this.sources.get(`${ip} ${port}`);
    if (name === undefined) {
      this.#onRefused("wrong-address");
      return undefined;
    }
    if (!isBareIpv4(bytes)) return undefined;
    this.#onHeard(name);
    return { id: name, inner: bytes };
  }
}
