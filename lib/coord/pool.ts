/** The addresses that nodes get: which there are, and which is free. Pure. */
import { type Cidr, cidrContains, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";

/** However large the pool is: the memory that nodes may take. */
export const MAX_NODES = 65_536;

export class Pool {
  readonly cidr: Cidr;
  readonly #first: number;
  readonly #last: number;
  /** No address below is free, as far as is known. */
  #lowestFree: number;

  /** From the address after the one in the pool's text to the one before the last. */
  constructor(cidr: Cidr) {
    this.cidr = cidr;
    const size = 2 ** (32 - cidr.prefixLength);
    this.#first = ipNumber(cidr.ip) + 1;
    this.#last = Math.floor(ipNumber(cidr.ip) / size) * size + size - 2;
    this.#lowestFree = this.#first;
  }

  /** How many addresses there are for nodes. */
  get capacity(): number {
    return Math.min(this.#last - this.#first + 1, MAX_NODES);
  }

  /** The one that is wanted where that can be, else the lowest. Undefined: all are taken. */
  free(wanted: Ip | undefined, isTaken: (ip: Ip) => boolean): Ip | undefined {
    if (wanted && this.#has(wanted) && !isTaken(wanted)) return wanted;
    while (this.#lowestFree <= this.#last) {
      const ip = numberIp(this.#lowestFree);
      if (!isTaken(ip)) return ip;
      this.#lowestFree++;
    }
    return undefined;
  }

  /** That address is free again. */
  giveBack(ip: Ip): void {
    this.#lowestFree = Math.min(this.#lowestFree, ipNumber(ip));
  }

  #has(ip: Ip): boolean {
    if (!cidrContains(this.cidr, ip)) return false;
    const number = ipNumber(ip);
    return number >= this.#first && number <= this.#last;
  }
}

export function byAddress(a: { tunnelIp: Ip }, b: { tunnelIp: Ip }): number {
  return ipNumber(a.tunnelIp) - ipNumber(b.tunnelIp);
}

function ipNumber(ip: Ip): number {
  return new Reader(ipBytes(ip), "network").u32();
}

function numberIp(number: number): Ip {
  return ipFromBytes(new Writer("network").u32(number).finish());
}
