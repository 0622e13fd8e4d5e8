/** Metrics by prom-client in a registry of their own: what each program's metrics are made of. */
import "./node_require.ts";
import client from "prom-client";

/** What a metrics server serves. */
export interface MetricsText {
  text(): Promise<string>;
  readonly contentType: string;
}

export abstract class Metrics implements MetricsText {
  readonly #registry = new client.Registry();

  /** Prometheus text format 0.0.4. */
  async text(): Promise<string> {
    return await this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  protected gauge<L extends string>(name: string, help: string, labelNames: L[] = []) {
    return new client.Gauge({ name, help, labelNames, registers: [this.#registry] });
  }

  /** Asked when somebody looks. */
  protected gaugeOf(name: string, help: string, look: () => number): void {
    new client.Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(look());
      },
    });
  }

  protected counter<L extends string>(name: string, help: string, labelNames: L[] = []) {
    return new client.Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  protected histogram<L extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: L[] = [],
  ) {
    return new client.Histogram({ name, help, buckets, labelNames, registers: [this.#registry] });
  }
}
