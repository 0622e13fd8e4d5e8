/** How the user-space plane tells whose a packet with jtunnel's header is. */
import { fromHex } from "../../../bytes.ts";
import type { SockAddr } from "../../../linux/mod.ts";
import { type DataCodec, isIpPacket, type ThreadCodec } from "../../../dataplane/mod.ts";
import type { Refusal } from "../gretun/auth.ts";
import {
  decodeJtunnel,
  encodeJtunnel,
  isReflection,
  JTUNNEL_OVERHEAD_BYTES,
  type JtunnelId,
} from "./wire.ts";

export interface JtunnelEvents {
  /** A packet with an identifier; whether its inner packet is taken. */
  onPacket(id: JtunnelId, source: SockAddr, isSignOfLife: boolean): string | undefined;
  onRefused(reason: Refusal): void;
  /** Threads have carried packets of the link's far end. */
  onCarried(name: string): void;
  /** The far end's identifier; undefined before it is known. */
  farId(name: string): JtunnelId | undefined;
}

/** By the sender's identifier. */
export class JtunnelCodec implements DataCodec {
  readonly threads: ThreadCodec;
  readonly #own: Uint8Array;
  readonly #events: JtunnelEvents;

  constructor(own: Uint8Array, events: JtunnelEvents) {
    this.#own = own;
    this.#events = events;
    this.threads = {
      ...{ encapsulation: "jtunnel", ownId: own, meetsStrangers: true },
      extras: (name) => {
        const id = events.farId(name);
        return id === undefined ? {} : { farId: fromHex(id) };
      },
      heard: (name) => events.onCarried(name),
    };
  }

  overheadBytes(): number {
    return JTUNNEL_OVERHEAD_BYTES;
  }

  encode(_name: string, inner: Uint8Array): Uint8Array | undefined {
    return isIpPacket(inner) ? encodeJtunnel(this.#own, inner) : undefined;
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    const packet = decodeJtunnel(bytes);
    const isSignOfLife = packet?.inner.length === 0;
    if (!packet || !(isSignOfLife || isIpPacket(packet.inner))) {
      this.#events.onRefused(packet ? "not-ip" : "malformed");
      return undefined;
    }
    if (isReflection(bytes, this.#own)) {
      this.#events.onRefused("unknown-client");
      return undefined;
    }
    const name = this.#events.onPacket(packet.id, source, isSignOfLife);
    return name === undefined || isSignOfLife ? undefined : { id: name, inner: packet.inner };
  }
}
