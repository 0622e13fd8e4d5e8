/** How the user-space plane tells whose a datagram is. */
import { decodeGre, encodeGre, isIpPacket } from "../dataplane/mod.ts";
import { endpointOf, type SockAddr } from "../linux/mod.ts";
import type { Refusal } from "./protocol/gretun/auth.ts";
import { BARE_OVERHEAD_BYTES, isBareIpv4 } from "./protocol/ipipou/wire.ts";
import {
  decodeJtunnel,
  encodeJtunnel,
  isReflection,
  JTUNNEL_OVERHEAD_BYTES,
  type JtunnelId,
} from "./protocol/jtunnel/wire.ts";
import type { DataCodec } from "./plane.ts";
import { SEALED_OVERHEAD_BYTES, type Sealer, sessionOf } from "./protocol/gretun/seal.ts";

/** IPv4 20, UDP 8, GRE 4, key 4. */
const GRE_OVERHEAD_BYTES = 36;

/** One end's view of one session. */
export interface SealedSession {
  name: string;
  sealer: Sealer;
}

export interface SealedEvents {
  /** A packet that only the far end can have sent. */
  onHeard(session: SealedSession, source: SockAddr): void;
  onUnknownSession(bytes: Uint8Array, source: SockAddr): void;
  onRefused(reason: Refusal): void;
}

/** Sealed data: sessions by the number in the packet. */
export class SealedCodec implements DataCodec {
  readonly overheadBytes = SEALED_OVERHEAD_BYTES;
  /** Those whose packets are taken; the owner keeps it. */
  readonly sessions = new Map<string, SealedSession>();
  /** By link: the one that packets are sent in. */
  readonly sending = new Map<string, SealedSession>();
  readonly #events: SealedEvents;

  constructor(events: SealedEvents) {
    this.#events = events;
  }

  encode(name: string, inner: Uint8Array): Uint8Array | undefined {
    return isIpPacket(inner) ? this.sending.get(name)?.sealer.seal(inner) : undefined;
  }

  decode(bytes: Uint8Array, source: SockAddr) {
    const key = sessionOf(bytes);
    const session = key === undefined ? undefined : this.sessions.get(key);
    if (!session) {
      if (key === undefined) this.#events.onRefused("malformed");
      else this.#events.onUnknownSession(bytes, source);
      return undefined;
    }
    const inner = session.sealer.open(bytes);
    if (typeof inner === "string") {
      this.#events.onRefused(inner);
      return undefined;
    }
    this.#events.onHeard(session, source);
    return { name: session.name, inner };
  }
}

/** Bare IPv4 (ipipou): by the endpoint that the link's packets come from. */
export class BareCodec implements DataCodec {
  readonly overheadBytes = BARE_OVERHEAD_BYTES;
  /** Names by `IP PORT`; the owner keeps it. */
  readonly sources = new Map<string, string>();
  readonly #onHeard: (name: string) => void;
  readonly #onRefused: (reason: Refusal) => void;

  constructor(onHeard: (name: string) => void, onRefused: (reason: Refusal) => void) {
    this.#onHeard = onHeard;
    this.#onRefused = onRefused;
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
    return { name, inner: bytes };
  }
}

/** GRE with a key, on a spoke whose kernel has none: one far end. */
export class GreCodec implements DataCodec {
  readonly overheadBytes = GRE_OVERHEAD_BYTES;
  keys: { ikey: number; okey: number } | undefined;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  encode(_name: string, inner: Uint8Array): Uint8Array | undefined {
    return this.keys && encodeGre(inner, this.keys.okey);
  }

  decode(bytes: Uint8Array) {
    const packet = decodeGre(bytes);
    if (!packet || !this.keys || packet.key !== this.keys.ikey) return undefined;
    return { name: this.#name, inner: packet.inner };
  }
}

export interface JtunnelEvents {
  /** A packet with an identifier; whether its inner packet is taken. */
  onPacket(id: JtunnelId, source: SockAddr, isSignOfLife: boolean): string | undefined;
  onRefused(reason: Refusal): void;
}

/** jtunnel's header: by the sender's identifier. */
export class JtunnelCodec implements DataCodec {
  readonly overheadBytes = JTUNNEL_OVERHEAD_BYTES;
  readonly #own: Uint8Array;
  readonly #events: JtunnelEvents;

  constructor(own: Uint8Array, events: JtunnelEvents) {
    this.#own = own;
    this.#events = events;
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
    return name === undefined || isSignOfLife ? undefined : { name, inner: packet.inner };
  }
}
