/** Metrics of hub and spoke, by prom-client; every one is there from the first scrape. */
import client from "prom-client";
import { type Refusal, REFUSALS } from "./protocol/gretun/auth.ts";

export class HubMetrics {
  readonly #registry = new client.Registry();
  readonly #refusedCounts: Record<string, number> = {};
  readonly #clients = this.#gauge("gretun_hub_clients", "Clients by state", ["state"]);
  readonly #refused = this.#counter(
    "gretun_hub_refused_packets_total",
    "Packets refused, by reason",
    ["reason"],
  );
  readonly #authentications = this.#counter(
    "gretun_hub_authentications_total",
    "Authentications that were taken",
  );
  readonly #roams = this.#counter("gretun_hub_roams_total", "Changes of a client's endpoint");

  constructor() {
    for (const reason of REFUSALS) this.#refused.inc({ reason }, 0);
    this.setClients(0, 0);
  }

  setClients(up: number, all: number): void {
    this.#clients.set({ state: "up" }, up);
    this.#clients.set({ state: "down" }, all - up);
  }

  refused(reason: Refusal): void {
    this.#refusedCounts[reason] = (this.#refusedCounts[reason] ?? 0) + 1;
  }

  authenticated(): void {
    this.#authentications.inc();
  }

  roamed(): void {
    this.#roams.inc();
  }

  /** Those that happened. */
  get refusals(): Record<string, number> {
    return { ...this.#refusedCounts };
  }

  /** Prometheus text format 0.0.4. */
  async text(): Promise<string> {
    // Counted apart, as a flood must not pay for labels with each packet.
    this.#refused.reset();
    for (const reason of REFUSALS) {
      this.#refused.inc({ reason }, this.#refusedCounts[reason] ?? 0);
    }
    return await this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #gauge<L extends string>(name: string, help: string, labelNames: L[] = []) {
    return new client.Gauge({ name, help, labelNames, registers: [this.#registry] });
  }

  #counter<L extends string>(name: string, help: string, labelNames: L[] = []) {
    return new client.Counter({ name, help, labelNames, registers: [this.#registry] });
  }
}
