/** The daemon's metrics, by prom-client; every one is there from the first scrape. */
import client from "prom-client";
import { PEER_STATES, type PeerState } from "../peer/mod.ts";

const PUNCH_BUCKETS_SECONDS = [0.25, 0.5, 1, 2, 5, 10, 30];

export class DaemonMetrics {
  readonly #registry = new client.Registry();
  readonly #peers = new client.Gauge({
    name: "gretun_peers",
    help: "Peers by state",
    labelNames: ["state"],
    registers: [this.#registry],
  });
  readonly #pings = new client.Counter({
    name: "gretun_disco_pings_sent_total",
    help: "Disco pings sent",
    registers: [this.#registry],
  });
  readonly #pongs = new client.Counter({
    name: "gretun_disco_pongs_received_total",
    help: "Disco pongs that answered a ping of ours",
    registers: [this.#registry],
  });
  readonly #punch = new client.Histogram({
    name: "gretun_hole_punch_duration_seconds",
    help: "Time from the start of a search for a path to direct",
    buckets: PUNCH_BUCKETS_SECONDS,
    registers: [this.#registry],
  });

  constructor() {
    for (const state of PEER_STATES) this.#peers.set({ state }, 0);
  }

  peerAdded(state: PeerState): void {
    this.#peers.inc({ state });
  }

  peerRemoved(state: PeerState): void {
    this.#peers.dec({ state });
  }

  peerChanged(from: PeerState, to: PeerState): void {
    if (from === to) return;
    this.peerRemoved(from);
    this.peerAdded(to);
  }

  pingSent(): void {
    this.#pings.inc();
  }

  pongReceived(): void {
    this.#pongs.inc();
  }

  punched(seconds: number): void {
    this.#punch.observe(seconds);
  }

  /** Prometheus text format 0.0.4. */
  async text(): Promise<string> {
    return await this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
