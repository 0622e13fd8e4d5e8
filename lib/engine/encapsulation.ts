/** Headers between UDP and the inner packet, and whose a datagram is by them. */
import type { Arena } from "./arena.ts";
import { SessionCounters } from "../session_counters.ts";
import { type OpenSession, SEALED_HEADER, SEALED_TAG } from "./cipher.ts";
import type { Encapsulation, LinkSpec } from "./messages.ts";
import { IPV4, versionOf } from "./packet.ts";
import { WordTable } from "./tables.ts";

const GRE_KEY = 0x2000;
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
export const MAX_HEADER = 8;

/** Of every datagram of the link. */
export function headerLength(encapsulation: Encapsulation, link: Pick<LinkSpec, "keys">): number {
  switch (encapsulation) {
    case "gre":
      return link.keys ? 8 : 4;
    case "bare":
      return 0;
    case "jtunnel":
      return 8;
    case "sealed":
      return SEALED_HEADER;
    default:
      return encapsulation satisfies never;
  }
}

/** A session of a link that datagrams are taken in. */
export interface TakenSession extends OpenSession {
  link: number;
  anySource: boolean;
  /** When the main thread was told of it, on the worker's clock. */
  toldMs: number;
}

/** Puts headers before inner packets. */
export class HeaderWriter {
  readonly #arena: Arena;
  readonly #encapsulation: Encapsulation;
  readonly #ownId: Uint8Array;

  constructor(arena: Arena, encapsulation: Encapsulation, ownId: Uint8Array = new Uint8Array(8)) {
    this.#arena = arena;
    this.#encapsulation = encapsulation;
    this.#ownId = ownId;
  }

  carries(version: 4 | 6): boolean {
    return version === 4 || this.#encapsulation !== "bare";
  }

  /** `okey` of -1: no key. */
  write(to: number, version: 4 | 6, okey: number): void {
    const { view, bytes } = this.#arena;
    if (this.#encapsulation === "gre") {
      view.setUint16(to, okey < 0 ? 0 : GRE_KEY);
      view.setUint16(to + 2, version === 4 ? ETH_P_IP : ETH_P_IPV6);
      if (okey >= 0) view.setUint32(to + 4, okey);
    } else if (this.#encapsulation === "jtunnel") {
      for (let i = 0; i < 8; i++) bytes[to + i] = this.#ownId[i]!;
    }
  }
}

/** Finds the link that a datagram belongs to. */
export class HeaderReader {
  /** Of the last datagram that {@link find} knew. */
  innerAt = 0;
  /** The session of that one, where there are any. */
  session: TakenSession | undefined;
  readonly #arena: Arena;
  readonly #encapsulation: Encapsulation;
  /** By source address and, last, key or port; jtunnel by identifier. */
  #known = new WordTable(0);
  #keyless = new WordTable(0);
  readonly #key = new Int32Array(5);
  #port = 0;
  /** By link: where its packets come from. */
  readonly #remotes: { words: Int32Array; port: number }[] = [];
  #sessions: TakenSession[] = [];
  /** The last answer: packets come in runs. */
  #lastKey = -2;
  #lastFound = -1;

  constructor(arena: Arena, encapsulation: Encapsulation) {
    this.#arena = arena;
    this.#encapsulation = encapsulation;
  }

  /** All links that carry something. */
  setLinks(links: readonly LinkSpec[]): void {
    this.#known = new WordTable(links.length);
    this.#keyless = new WordTable(links.length);
    this.#sessions = [];
    for (const link of links) if (link.path) this.#add(link, link.path.to);
    if (this.#encapsulation === "sealed") this.#addSessions(links);
    this.#lastKey = -2;
  }

  #addSessions(links: readonly LinkSpec[]): void {
    for (const { id: link, seal } of links) {
      for (const { memory, ...session } of seal?.taking ?? []) {
        const counters = new SessionCounters(memory);
        const { anySource } = seal!;
        this.#sessions.push({ ...session, counters, link, anySource, toldMs: -Infinity });
      }
    }
    this.#known = new WordTable(this.#sessions.length);
    for (const [i, { id }] of this.#sessions.entries()) {
      this.#known.set(this.#sessionKey(new DataView(id.buffer, id.byteOffset), 0), i);
    }
  }

  #add({ id, keys, farId }: LinkSpec, to: Uint8Array): void {
    const view = new DataView(to.buffer, to.byteOffset, to.length);
    this.#setSource(view, 0, to.length);
    this.#remotes[id] = { words: this.#key.slice(0, 4), port: this.#port };
    switch (this.#encapsulation) {
      case "gre":
        this.#key[4] = keys?.ikey ?? 0;
        (keys ? this.#known : this.#keyless).set(this.#key, id);
        break;
      case "bare":
        this.#key[4] = this.#port;
        this.#known.set(this.#key, id);
        break;
      case "jtunnel":
        if (farId) {
          this.#known.set(this.#jtunnelKey(new DataView(farId.buffer, farId.byteOffset), 0), id);
        }
        break;
      case "sealed":
        break;
      default:
        this.#encapsulation satisfies never;
    }
  }

  /** The datagrams to come are from the `sockaddr` at `at`. */
  from(at: number, length: number): void {
    this.#setSource(this.#arena.view, at, length);
    this.#lastKey = -2;
  }

  /** The link's number; -1 for what is no data, -2 for data of no link. */
  find(at: number, length: number): number {
    switch (this.#encapsulation) {
      case "gre":
        return this.#findGre(at, length);
      case "bare":
        return this.#findBare(at, length);
      case "jtunnel":
        return this.#findJtunnel(at, length);
      case "sealed":
        return this.#findSealed(at, length);
      default:
        return this.#encapsulation satisfies never;
    }
  }

  #findGre(at: number, length: number): number {
    const { view } = this.#arena;
    if (length < 4) return -1;
    const flags = view.getUint16(at);
    const headerLength = flags === GRE_KEY ? 8 : 4;
    if ((flags & ~GRE_KEY) !== 0 || length < headerLength) return -1;
    this.innerAt = at + headerLength;
    const version = versionOf(this.#arena.bytes, this.innerAt, length - headerLength);
    const protocol = view.getUint16(at + 2);
    if (version === 0 || protocol !== (version === 4 ? ETH_P_IP : ETH_P_IPV6)) return -1;
    const key = flags === GRE_KEY ? view.getUint32(at + 4) : -1;
    if (key !== this.#lastKey) {
      this.#lastKey = key;
      this.#key[4] = key < 0 ? 0 : key;
      const found = (key < 0 ? this.#keyless : this.#known).get(this.#key);
      this.#lastFound = this.#remotes[found]?.port === this.#port ? found : -1;
    }
    return this.#lastFound < 0 ? -2 : this.#lastFound;
  }

  #findBare(at: number, length: number): number {
    const { bytes, view } = this.#arena;
    const isIpv4 = versionOf(bytes, at, length) === 4;
    if (!isIpv4 || view.getUint16(at + IPV4.totalLength) !== length) return -1;
    this.innerAt = at;
    if (this.#lastKey !== this.#port) {
      this.#lastKey = this.#port;
      this.#key[4] = this.#port;
      this.#lastFound = this.#known.get(this.#key);
    }
    return this.#lastFound < 0 ? -2 : this.#lastFound;
  }

  #findJtunnel(at: number, length: number): number {
    this.innerAt = at + 8;
    if (length < 8 || versionOf(this.#arena.bytes, this.innerAt, length - 8) === 0) return -1;
    const found = this.#known.get(this.#jtunnelKey(this.#arena.view, at));
    return found < 0 ? -2 : found;
  }

  #findSealed(at: number, length: number): number {
    if (length < SEALED_HEADER + SEALED_TAG) return -1;
    this.session = this.#sessions[this.#known.get(this.#sessionKey(this.#arena.view, at))];
    if (!this.session) return -2;
    this.innerAt = at + SEALED_HEADER;
    return this.session.link;
  }

  /** Whether the datagrams come from where the link's path leads. */
  isFromRemote(link: number): boolean {
    const remote = this.#remotes[link];
    if (remote?.port !== this.#port) return false;
    for (let i = 0; i < 4; i++) if (remote.words[i] !== this.#key[i]) return false;
    return true;
  }

  #sessionKey(view: DataView, at: number): Int32Array {
    this.#idKey.fill(0);
    this.#idKey[0] = view.getInt32(at);
    this.#idKey[1] = view.getInt32(at + 4);
    return this.#idKey;
  }

  #jtunnelKey(view: DataView, at: number): Int32Array {
    this.#idKey[0] = view.getInt32(at);
    this.#idKey[1] = view.getInt32(at + 4);
    // Whoever has moved is no longer that link's far end until the main thread says so.
    this.#idKey.set(this.#key.subarray(2, 4), 2);
    this.#idKey[4] = this.#port;
    return this.#idKey;
  }
  readonly #idKey = new Int32Array(5);

  /** IPv4 as IPv4-mapped IPv6. */
  #setSource(view: DataView, at: number, length: number): void {
    const key = this.#key;
    this.#port = view.getUint16(at + 2);
    if (length >= 28) {
      for (let i = 0; i < 4; i++) key[i] = view.getInt32(at + 8 + i * 4);
    } else {
      key[0] = 0;
      key[1] = 0;
      key[2] = 0xffff;
      key[3] = view.getInt32(at + 4);
    }
  }
}
