/** How the user-space plane tells whose a packet with jtunnel's header is. */
import { fromHex } from "../../../bytes.ts";
import type { SockAddr } from "../../../linux/mod.ts";
import { type DataCodec, isIpPacket } from "../../../dataplane/mod.ts";
import type { Refusal } from "../gretun/auth.ts";
import { decodeJtunnel, isReflection, JTUNNEL_OVERHEAD_BYTES, type JtunnelId } from "./wire.ts";

export interface JtunnelEvents {
  /** Where packets may come from; absent: anywhere. */
  takesFrom?(source: SockAddr): boolean;
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
  readonly encapsulation = "jtunnel";
  onChanged?: (id: string) => void;
  readonly #events: JtunnelEvents;

  constructor(readonly ownId: Uint8Array, events: JtunnelEvents) {
    this.#events = events;
  }

  extras(name: string) {
    const id = this.#events.farId(name);
    return id === undefined ? {} : { farId: fromHex(id) };
  }

  heard(name: string): void {
    this.#events.onCarried(name);
  }

  overheadBytes(): number {
    return JTUNNEL_OVERHEAD_BYTES;
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    if (this.#events.takesFrom?.(source) === false) {
      this.#events.onRefused("wrong-address");
      return undefined;
    }
    const packet = decodeJtunnel(bytes);
    const isSignOfLife = packet?.inner.length === 0;
    if (!packet || !(isSignOfLife || isIpPacket(packet.inner))) {
      this.#events.onRefused(packet ? "not-ip" : "malformed");
      return undefined;
    }
    if (isReflection(bytes, this.ownId)) {
      this.#events.onRefused("unknown-client");
      return undefined;
    }
    const name = this.#events.onPacket(packet.id, source, isSignOfLife);
    return name === undefined || isSignOfLife ? undefined : { id: name, inner: packet.inner };
  }
}
