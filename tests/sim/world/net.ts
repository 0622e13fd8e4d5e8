/** Networks: the internet, and local ones behind NATs. */
import { cidrContains, type Ip, parseCidr } from "../../../lib/addr.ts";
import type { Wire } from "./kernel.ts";
import { lengthOf, type Packet } from "./packet.ts";
import type { Dice } from "./random.ts";
import type { SimTime } from "./time.ts";

/** Where a connection ends, as the far end sees it. */
export interface Trace {
  source: Ip;
  station: Station;
  /** One way. */
  delayMs: number;
  /** Changes when what is on the way has forgotten its connections. */
  epoch: string;
}

/** What has an address in a network: a host, or a NAT. */
export interface Station {
  receive(packet: Packet): void;
  /** Where a connection from there to `to` ends. */
  trace?(source: Ip, to: Ip): Trace | undefined;
}

export interface Weather {
  /** One way; each packet takes at least so long, and at most so much longer. */
  delayMs: number;
  jitterMs: number;
  /** Of each packet's chance. */
  loss: number;
  duplicates: number;
  /** Larger packets disappear, and nobody is told; absent: none does. */
  mtu?: number;
}

export const FAIR: Weather = { delayMs: 10, jitterMs: 1, loss: 0, duplicates: 0 };
const CABLE: Weather = { delayMs: 0.2, jitterMs: 0.1, loss: 0, duplicates: 0 };
/** Routers of the internet between any two. */
const HOPS = 6;
/** Somewhere on the way to others nobody takes packets for these (RFC 1918, RFC 6598). */
const INSIDE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"]
  .map(parseCidr);

abstract class Network implements Wire {
  readonly stations = new Map<Ip, Station>();
  weather: Weather;
  readonly #time: SimTime;
  readonly #dice: Dice;

  constructor(time: SimTime, dice: Dice, weather: Weather) {
    this.#time = time;
    this.#dice = dice;
    this.weather = weather;
  }

  abstract transmit(packet: Packet, nextHop: Ip): void;
  abstract trace(source: Ip, nextHop: Ip, to: Ip): Trace | undefined;

  protected deliver(packet: Packet, station: Ip): void {
    const { delayMs, jitterMs, loss, duplicates, mtu = Infinity } = this.weather;
    if (lengthOf(packet) > mtu) return;
    const copies = this.#dice.chance(duplicates) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.#dice.chance(loss)) continue;
      const takesMs = delayMs + this.#dice.fraction() * jitterMs;
      this.#time.after(takesMs, () => this.stations.get(station)?.receive(packet));
    }
  }
}

/** Everybody with a public address reaches everybody else's. */
export class Internet extends Network {
  /** Pairs of addresses between which nothing gets through. */
  readonly cuts = new Set<string>();

  constructor(time: SimTime, dice: Dice, weather: Weather = FAIR) {
    super(time, dice, weather);
  }

  cut(a: Ip, b: Ip): void {
    this.cuts.add([a, b].sort().join());
  }

  #isCut(a: Ip, b: Ip): boolean {
    return this.cuts.size > 0 && this.cuts.has([a, b].sort().join());
  }

  transmit(packet: Packet): void {
    const { from, to, ttl } = packet;
    if (ttl <= HOPS || this.#isCut(from.ip, to.ip) || isInside(to.ip)) return;
    this.deliver({ ...packet, ttl: ttl - HOPS }, to.ip);
  }

  trace(source: Ip, _nextHop: Ip, to: Ip): Trace | undefined {
    const station = this.stations.get(to);
    if (!station || this.#isCut(source, to) || isInside(to)) return undefined;
    return { source, station, delayMs: this.weather.delayMs, epoch: source };
  }
}

const inside = new Map<Ip, boolean>();

function isInside(ip: Ip): boolean {
  let is = inside.get(ip);
  if (is === undefined) inside.set(ip, is = INSIDE.some((cidr) => cidrContains(cidr, ip)));
  return is;
}

export class Lan extends Network {
  constructor(time: SimTime, dice: Dice) {
    super(time, dice, CABLE);
  }

  transmit(packet: Packet, nextHop: Ip): void {
    this.deliver(packet, nextHop);
  }

  trace(source: Ip, nextHop: Ip, to: Ip): Trace | undefined {
    const station = this.stations.get(nextHop);
    if (!station) return undefined;
    if (nextHop !== to) return station.trace?.(source, to);
    return { source, station, delayMs: this.weather.delayMs, epoch: source };
  }
}
