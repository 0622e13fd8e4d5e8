/** Metrics of hub and spoke; every one is there from the first scrape. */
import { Metrics } from "../metrics.ts";
import { type Refusal, REFUSALS } from "./protocol/gretun/auth.ts";

export class HubMetrics extends Metrics {
  readonly #refusedCounts: Record<string, number> = {};
  #more: () => ReadonlyMap<Refusal, number> = () => new Map();
  readonly #clients = this.gauge("gretun_hub_clients", "Clients by state", ["state"]);
  readonly #refused = this.counter(
    "gretun_hub_refused_packets_total",
    "Packets refused, by reason",
    ["reason"],
  );
  readonly #authentications = this.counter(
    "gretun_hub_authentications_total",
    "Authentications that were taken",
  );
  readonly #roams = this.counter("gretun_hub_roams_total", "Changes of a client's endpoint");

  constructor() {
    super();
    for (const reason of REFUSALS) this.#refused.inc({ reason }, 0);
    this.setClients(0, 0);
  }

  setClients(up: number, all: number): void {
    this.#clients.set({ state: "up" }, up);
    this.#clients.set({ state: "down" }, all - up);
  }

  /** Besides those that are told one by one. */
  watch(refused: () => ReadonlyMap<Refusal, number>): void {
    this.#more = refused;
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
    const sum = { ...this.#refusedCounts };
    for (const [reason, count] of this.#more()) {
      if (count > 0) sum[reason] = (sum[reason] ?? 0) + count;
    }
    return sum;
  }

  override async text(): Promise<string> {
    // Counted apart, as a flood must not pay for labels with each packet.
    this.#refused.reset();
    const { refusals } = this;
    for (const reason of REFUSALS) this.#refused.inc({ reason }, refusals[reason] ?? 0);
    return await super.text();
  }
}
