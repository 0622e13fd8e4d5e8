/** A NAT between a local network and the one outside, in the words of RFC 4787. */
import { type Endpoint, equalEndpoints, formatEndpoint, type Ip } from "../../../lib/addr.ts";
import type { Wire } from "./kernel.ts";
import type { Station, Trace } from "./net.ts";
import type { EchoPacket, Packet, UdpPacket } from "./packet.ts";
import type { Dice } from "./random.ts";
import type { SimTime } from "./time.ts";

/** Of the far end: nothing, its address, or its address and port. */
export type Dependence =
  | "endpoint-independent"
  | "address-dependent"
  | "address-and-port-dependent";

export interface NatBehaviour {
  mapping: Dependence;
  filtering: Dependence;
  ports: "preserved" | "random" | "sequential";
  /** Whether hosts inside reach each other by their outer addresses. */
  hairpin: boolean;
  /** A mapping is forgotten after so long without a packet from inside; or one in, if it counts. */
  timeoutMs: number;
  inboundRefreshes: boolean;
  /** UDP is let through at all. */
  udp: boolean;
}

/** As most home routers are. */
export const PORT_RESTRICTED: NatBehaviour = {
  mapping: "endpoint-independent",
  filtering: "address-and-port-dependent",
  ports: "preserved",
  hairpin: false,
  timeoutMs: 120_000,
  inboundRefreshes: true,
  udp: true,
};
export const FULL_CONE: NatBehaviour = { ...PORT_RESTRICTED, filtering: "endpoint-independent" };
/** As networks that many share, and firewalls for companies, are. */
export const SYMMETRIC: NatBehaviour = {
  ...PORT_RESTRICTED,
  mapping: "address-and-port-dependent",
  ports: "random",
};
export const NO_UDP: NatBehaviour = { ...PORT_RESTRICTED, udp: false };

interface Mapping {
  inner: Endpoint;
  outerPort: number;
  usedMs: number;
  /** Whom it was used for. */
  remotes: Set<string>;
}

export class Nat implements Station {
  behaviour: NatBehaviour;
  readonly #time: SimTime;
  readonly #dice: Dice;
  readonly #inside: Wire;
  readonly #outside: Wire & { stations: Map<Ip, Station>; trace: TraceOf };
  #outer: Ip;
  readonly #byKey = new Map<string, Mapping>();
  readonly #byPort = new Map<number, Mapping>();
  readonly #echoes = new Map<number, Ip>();
  #nextPort = 20_000;
  #flushes = 0;

  constructor(options: {
    time: SimTime;
    dice: Dice;
    behaviour: NatBehaviour;
    inside: Wire;
    outside: Wire & { stations: Map<Ip, Station>; trace: TraceOf };
    outer: Ip;
  }) {
    this.behaviour = options.behaviour;
    this.#time = options.time;
    this.#dice = options.dice;
    this.#inside = options.inside;
    this.#outside = options.outside;
    this.#outer = options.outer;
    this.#outside.stations.set(this.#outer, { receive: (packet) => this.#fromOutside(packet) });
  }

  get outer(): Ip {
    return this.#outer;
  }

  /** Another address, as after a reconnect: all mappings are gone. */
  setOuter(ip: Ip): void {
    this.#outside.stations.delete(this.#outer);
    this.#outer = ip;
    this.#outside.stations.set(ip, { receive: (packet) => this.#fromOutside(packet) });
    this.flush();
  }

  /** Forgets all mappings, as after a restart; new ones may have other ports. */
  flush(): void {
    this.#byKey.clear();
    this.#byPort.clear();
    this.#echoes.clear();
    this.#flushes++;
  }

  /** Rebinding: the same, and no new mapping has the port of an old one. */
  rebind(): void {
    const before = new Set(this.#byPort.keys());
    this.flush();
    for (const port of before) {
      const inner = { ip: this.#outer, port: 0 };
      const nobodys = {
        inner,
        outerPort: port,
        usedMs: this.#time.nowMs,
        remotes: new Set<string>(),
      };
      this.#byPort.set(port, nobodys);
    }
  }

  trace(_source: Ip, to: Ip): Trace | undefined {
    const trace = this.#outside.trace(this.#outer, to, to);
    return trace && { ...trace, epoch: `${trace.epoch} ${this.#flushes}` };
  }

  /** From inside. */
  receive(packet: Packet): void {
    if (packet.ttl <= 1) return;
    const forwarded = { ...packet, ttl: packet.ttl - 1 };
    if (forwarded.kind === "echo") return this.#echoOut(forwarded);
    if (!this.behaviour.udp) return;
    const { from, to } = forwarded;
    const mapping = this.#mapping(from, to);
    mapping.usedMs = this.#time.nowMs;
    mapping.remotes.add(formatEndpoint(to)).add(to.ip);
    const sent = { ...forwarded, from: { ip: this.#outer, port: mapping.outerPort } };
    if (to.ip !== this.#outer) return this.#outside.transmit(sent, to.ip);
    if (this.behaviour.hairpin) this.#fromOutside(sent);
  }

  #fromOutside(packet: Packet): void {
    if (packet.kind === "echo") return this.#echoIn(packet);
    const mapping = this.#live(this.#byPort.get(packet.to.port));
    if (!mapping || !this.#letsIn(mapping, packet)) return;
    if (this.behaviour.inboundRefreshes) mapping.usedMs = this.#time.nowMs;
    this.#inside.transmit({ ...packet, to: mapping.inner }, mapping.inner.ip);
  }

  #letsIn({ remotes, outerPort }: Mapping, { from }: UdpPacket): boolean {
    if (outerPort === 0) return false;
    switch (this.behaviour.filtering) {
      case "endpoint-independent":
        return remotes.size > 0;
      case "address-dependent":
        return remotes.has(from.ip);
      case "address-and-port-dependent":
        return remotes.has(formatEndpoint(from));
    }
  }

  #mapping(inner: Endpoint, remote: Endpoint): Mapping {
    const key = `${formatEndpoint(inner)} ${this.#keyOf(remote)}`;
    const known = this.#live(this.#byKey.get(key));
    if (known) return known;
    const outerPort = this.#freePort(inner);
    const mapping = { inner, outerPort, usedMs: this.#time.nowMs, remotes: new Set<string>() };
    this.#byKey.set(key, mapping);
    this.#byPort.set(outerPort, mapping);
    return mapping;
  }

  /** What of the far end makes another mapping. */
  #keyOf(remote: Endpoint): string {
    switch (this.behaviour.mapping) {
      case "endpoint-independent":
        return "";
      case "address-dependent":
        return remote.ip;
      case "address-and-port-dependent":
        return formatEndpoint(remote);
    }
  }

  #live(mapping: Mapping | undefined): Mapping | undefined {
    const isOver = mapping && this.#time.nowMs - mapping.usedMs > this.behaviour.timeoutMs;
    return isOver ? undefined : mapping;
  }

  #freePort(inner: Endpoint): number {
    const isFree = (port: number) => {
      const other = this.#live(this.#byPort.get(port));
      return !other;
    };
    if (this.behaviour.ports === "preserved" && isFree(inner.port)) return inner.port;
    for (;;) {
      const port = this.behaviour.ports === "sequential"
        ? this.#nextPort++
        : 1024 + this.#dice.below(64_000);
      if (isFree(port)) return port;
    }
  }

  #echoOut(packet: EchoPacket): void {
    this.#echoes.set(packet.id, packet.from.ip);
    this.#outside.transmit({ ...packet, from: { ip: this.#outer } }, packet.to.ip);
  }

  #echoIn(packet: EchoPacket): void {
    const inner = packet.isReply ? this.#echoes.get(packet.id) : undefined;
    if (inner) this.#inside.transmit({ ...packet, to: { ip: inner } }, inner);
  }

  /** Whether a host inside is seen there. */
  isMapped(inner: Endpoint): Endpoint | undefined {
    for (const mapping of this.#byPort.values()) {
      if (equalEndpoints(mapping.inner, inner) && this.#live(mapping)) {
        return { ip: this.#outer, port: mapping.outerPort };
      }
    }
    return undefined;
  }
}

type TraceOf = (source: Ip, nextHop: Ip, to: Ip) => Trace | undefined;
