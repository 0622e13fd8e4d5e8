/** NATs with address-and-port-dependent filtering, by the way that they choose outer ports. */
import { type Endpoint, formatEndpoint, type Ip } from "../../lib/addr.ts";
import type { OuterPorts } from "../../lib/peer/hard_nat.ts";

export class FakeNat {
  readonly ip: Ip;
  readonly #choice: OuterPorts;
  /** By inner port, and by remote where the choice has it so. */
  readonly #mappings = new Map<string, number>();
  readonly #opened = new Map<string, number>();
  #last = 40_000;

  constructor(ip: Ip, choice: OuterPorts) {
    this.ip = ip;
    this.#choice = choice;
  }

  /** Where a datagram from that inner port appears to come from. */
  out(innerPort: number, to: Endpoint): Endpoint {
    const remote = formatEndpoint(to);
    const key = this.#choice === "one" ? `${innerPort}` : `${innerPort} ${remote}`;
    const port = this.#mappings.get(key) ?? this.#newPort(innerPort);
    this.#mappings.set(key, port);
    this.#opened.set(`${port} ${remote}`, innerPort);
    return { ip: this.ip, port };
  }

  /** The inner port that a datagram gets to; undefined for one that was not asked for. */
  in(outerPort: number, from: Endpoint): number | undefined {
    return this.#opened.get(`${outerPort} ${formatEndpoint(from)}`);
  }

  /** What others behind it do. */
  skip(mappings: number): void {
    this.#last += mappings;
  }

  #newPort(innerPort: number): number {
    if (this.#choice === "one") return innerPort;
    if (this.#choice === "sequential") return ++this.#last;
    return 1024 + crypto.getRandomValues(new Uint32Array(1))[0]! % 64_512;
  }
}
