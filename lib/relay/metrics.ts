/** A relay's metrics, by prom-client; every one is there from the first scrape. */
import client from "prom-client";
import { DESK_RESULTS, type DeskResult } from "./desk.ts";
import type { KernelCounters } from "./kernel.ts";

/** What a datagram went out by; "kernel" is UDP too. */
export const RELAY_TRANSPORTS = ["udp", "ws", "kernel"] as const;
type RelayTransport = typeof RELAY_TRANSPORTS[number];

export const RELAY_DROPS = [
  "unknown-source",
  "unbound-peer",
  "rate",
  "too-long",
  "buffer-full",
  "send-failed",
] as const;
export type RelayDrop = typeof RELAY_DROPS[number];

export class RelayMetrics {
  readonly #registry = new client.Registry();
  readonly #packets = new client.Counter({
    name: "gretun_relay_packets_total",
    help: "Datagrams forwarded, by what they went out by",
    labelNames: ["transport"],
    registers: [this.#registry],
  });
  readonly #bytes = new client.Counter({
    name: "gretun_relay_bytes_total",
    help: "Bytes of datagrams forwarded, by what they went out by; the kernel's with headers",
    labelNames: ["transport"],
    registers: [this.#registry],
  });
  readonly #drops = new client.Counter({
    name: "gretun_relay_drops_total",
    help: "Datagrams not forwarded, by reason",
    labelNames: ["reason"],
    registers: [this.#registry],
  });
  readonly #requests = new client.Counter({
    name: "gretun_relay_requests_total",
    help: "Messages to the relay itself, by result",
    labelNames: ["result"],
    registers: [this.#registry],
  });
  // Counted here and not by the counters: those cost more than forwarding does.
  readonly #forwarded = { udp: { packets: 0, bytes: 0 }, ws: { packets: 0, bytes: 0 } };
  readonly #kernel: (() => KernelCounters) | undefined;
  /** Already added to `drops`. */
  #kernelDrops = 0;

  /** Both are asked when somebody looks. */
  constructor(
    table: () => { allocations: number; ports: number; connections: number },
    kernel?: () => KernelCounters,
  ) {
    this.#kernel = kernel;
    for (const result of DESK_RESULTS) this.#requests.inc({ result }, 0);
    for (const reason of RELAY_DROPS) this.#drops.inc({ reason }, 0);
    const gauge = (name: string, help: string, look: () => number) =>
      new client.Gauge({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.set(look());
        },
      });
    gauge("gretun_relay_allocations", "Allocations that live", () => table().allocations);
    gauge("gretun_relay_ports", "Relayed UDP ports that are open", () => table().ports);
    gauge("gretun_relay_connections", "WebSockets that are open", () => table().connections);
  }

  forwarded(transport: "udp" | "ws", bytes: number): void {
    const count = this.#forwarded[transport];
    count.packets++;
    count.bytes += bytes;
  }

  dropped(reason: RelayDrop): void {
    this.#drops.inc({ reason });
  }

  requested(result: DeskResult): void {
    this.#requests.inc({ result });
  }

  /** Prometheus text format 0.0.4. */
  async text(): Promise<string> {
    this.#packets.reset();
    this.#bytes.reset();
    const kernel = this.#kernel?.();
    const counts: Record<RelayTransport, { packets: number; bytes: number }> = {
      ...this.#forwarded,
      kernel: kernel?.forwarded ?? { packets: 0, bytes: 0 },
    };
    for (const transport of RELAY_TRANSPORTS) {
      const { packets, bytes } = counts[transport];
      this.#packets.inc({ transport }, packets);
      this.#bytes.inc({ transport }, bytes);
    }
    if (kernel) {
      this.#drops.inc({ reason: "rate" }, kernel.dropped.packets - this.#kernelDrops);
      this.#kernelDrops = kernel.dropped.packets;
    }
    return await this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
