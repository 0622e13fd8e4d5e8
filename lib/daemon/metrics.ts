/** The daemon's metrics; every one is there from the first scrape. */
import { type DataPlane, PLANE_DROPS, PLANE_REFUSALS } from "../dataplane/mod.ts";
import { Metrics } from "../metrics.ts";
import { PEER_STATES, type PeerState } from "../peer/mod.ts";

const PUNCH_BUCKETS_SECONDS = [0.25, 0.5, 1, 2, 5, 10, 30];

export class DaemonMetrics extends Metrics {
  readonly #peers = this.gauge("gretun_peers", "Peers by state", ["state"]);
  readonly #pings = this.counter("gretun_disco_pings_sent_total", "Disco pings sent");
  readonly #heldBack = this.counter(
    "gretun_disco_pings_held_back_total",
    "Disco pings not sent, as too many went to addresses that have not answered",
  );
  readonly #pongs = this.counter(
    "gretun_disco_pongs_received_total",
    "Disco pongs that answered a ping of ours",
  );
  readonly #collisions = this.gauge(
    "gretun_address_collisions",
    "Addresses and routes of peers that are not set, as they collide with this host's",
  );
  readonly #punch = this.histogram(
    "gretun_hole_punch_duration_seconds",
    "Time from the start of a search for a path to direct",
    PUNCH_BUCKETS_SECONDS,
  );
  readonly #refused = this.counter(
    "gretun_refused_packets_total",
    "Packets of data refused, by reason",
    ["reason"],
  );
  readonly #dropped = this.counter(
    "gretun_dropped_packets_total",
    "Packets of data that user space could not carry, by reason",
    ["reason"],
  );
  #plane: Pick<DataPlane, "refused" | "threads"> | undefined;

  constructor() {
    super();
    for (const state of PEER_STATES) this.#peers.set({ state }, 0);
  }

  /** It counts packets. */
  watchPlane(plane: Pick<DataPlane, "refused" | "threads">): void {
    this.#plane = plane;
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

  pingHeldBack(): void {
    this.#heldBack.inc();
  }

  collided(count: number): void {
    this.#collisions.set(count);
  }

  pongReceived(): void {
    this.#pongs.inc();
  }

  punched(seconds: number): void {
    this.#punch.observe(seconds);
  }

  override async text(): Promise<string> {
    this.#refused.reset();
    const refused = this.#plane?.refused();
    for (const reason of PLANE_REFUSALS) this.#refused.inc({ reason }, refused?.get(reason) ?? 0);
    this.#dropped.reset();
    const dropped = this.#plane?.threads?.()?.drops;
    for (const reason of PLANE_DROPS) this.#dropped.inc({ reason }, dropped?.get(reason) ?? 0);
    return await super.text();
  }
}
