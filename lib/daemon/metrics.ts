/** The daemon's metrics; every one is there from the first scrape. */
import { type DataPlane, PLANE_DROPS, PLANE_REFUSALS } from "../dataplane/mod.ts";
import { shortKey } from "../keys.ts";
import { Metrics } from "../metrics.ts";
import { PEER_STATES, type PeerState } from "../peer/mod.ts";
import type { DaemonReport } from "./control.ts";
import type { PeerReport } from "./peer_report.ts";

const PUNCH_BUCKETS_SECONDS = [0.25, 0.5, 1, 2, 5, 10, 30];

/** Series of peers are for so many of them, those with a path first: a server stores each for long. */
export const MAX_PEERS_SHOWN = 200;
const PEER_LABELS = ["peer", "key"] as const;

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
  readonly #coordinatorUp = this.gauge(
    "gretun_coordinator_up",
    "Whether the coordinator answers",
  );
  readonly #findings = this.gauge(
    "gretun_findings",
    "Things that are wrong, which gretun status explains",
  );
  readonly #peerReceived = this.counter(
    "gretun_peer_received_bytes_total",
    "Bytes of data from the peer, since its link was made",
    [...PEER_LABELS],
  );
  readonly #peerSent = this.counter(
    "gretun_peer_sent_bytes_total",
    "Bytes of data to the peer, since its link was made",
    [...PEER_LABELS],
  );
  readonly #peerRtt = this.gauge(
    "gretun_peer_rtt_seconds",
    "Round-trip time of the last answered ping on the path",
    [...PEER_LABELS],
  );
  readonly #peerPath = this.gauge(
    "gretun_peer_path",
    "Always 1; path: lan, direct, port-mapped, tunnel, relay-udp, relay-tcp, connecting or offline",
    [...PEER_LABELS, "path"],
  );
  readonly #peerPathAge = this.gauge(
    "gretun_peer_path_age_seconds",
    "Since when the peer has its path",
    [...PEER_LABELS],
  );
  readonly #peersHidden = this.gauge(
    "gretun_peers_without_series",
    `Peers that gretun_peer_* leaves out, as there are more than ${MAX_PEERS_SHOWN}`,
  );
  #report: () => DaemonReport | undefined = () => undefined;
  #plane: Pick<DataPlane, "refused" | "threads"> | undefined;

  constructor() {
    super();
    for (const state of PEER_STATES) this.#peers.set({ state }, 0);
  }

  /** Asked when somebody looks. */
  watchReport(report: () => DaemonReport): void {
    this.#report = report;
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
    this.#showReport(this.#report());
    return await super.text();
  }

  #showReport(report: DaemonReport | undefined): void {
    const { state, coordinator_error, findings = [], peers = [] } = report ?? {};
    this.#coordinatorUp.set(state === "running" && coordinator_error === undefined ? 1 : 0);
    this.#findings.set(findings.filter(({ harmless }) => !harmless).length);
    const ofPeers = [this.#peerReceived, this.#peerSent, this.#peerRtt, this.#peerPath];
    for (const metric of [...ofPeers, this.#peerPathAge]) metric.reset();
    const shown = peers.toSorted((a, b) =>
      Number(b.path !== undefined) - Number(a.path !== undefined)
    )
      .slice(0, MAX_PEERS_SHOWN);
    for (const peer of shown) this.#showPeer(peer);
    this.#peersHidden.set(peers.length - shown.length);
  }

  #showPeer(report: PeerReport): void {
    const labels = { peer: report.name, key: shortKey(report.node_key) };
    const path = report.path ?? (report.offline ? "offline" : "connecting");
    this.#peerPath.set({ ...labels, path }, 1);
    this.#peerReceived.inc(labels, report.rx_bytes ?? 0);
    this.#peerSent.inc(labels, report.tx_bytes ?? 0);
    if (report.rtt_ms !== undefined) this.#peerRtt.set(labels, report.rtt_ms / 1000);
    if (report.path_since_s !== undefined) this.#peerPathAge.set(labels, report.path_since_s);
  }
}
