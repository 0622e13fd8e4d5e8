/** A relay's metrics; every one is there from the first scrape. */
import { Metrics } from "../metrics.ts";
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

export class RelayMetrics extends Metrics {
  readonly #packets = this.counter(
    "gretun_relay_packets_total",
    "Datagrams forwarded, by what they went out by",
    ["transport"],
  );
  readonly #bytes = this.counter(
    "gretun_relay_bytes_total",
    "Bytes of datagrams forwarded, by what they went out by; the kernel's with headers",
    ["transport"],
  );
  readonly #drops = this.counter(
    "gretun_relay_drops_total",
    "Datagrams not forwarded, by reason",
    ["reason"],
  );
  readonly #requests = this.counter(
    "gretun_relay_requests_total",
    "Messages to the relay itself, by result",
    ["result"],
  );
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
    super();
    this.#kernel = kernel;
    for (const result of DESK_RESULTS) this.#requests.inc({ result }, 0);
    for (const reason of RELAY_DROPS) this.#drops.inc({ reason }, 0);
    this.gaugeOf("gretun_relay_allocations", "Allocations that live", () => table().allocations);
    this.gaugeOf("gretun_relay_ports", "Relayed UDP ports that are open", () => table().ports);
    this.gaugeOf("gretun_relay_connections", "WebSockets that are open", () => table().connections);
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

  override async text(): Promise<string> {
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
    return await super.text();
  }
}
