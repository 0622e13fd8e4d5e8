/** The coordinator's metrics; every one is there from the first scrape. */
import { Metrics } from "../metrics.ts";
import type { HttpEvent } from "./http_server.ts";
import type { MailboxSizes } from "./mailbox.ts";

const REQUEST_BUCKETS_SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30];
const SAVE_BUCKETS_SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2];

const NODE_STATES = ["listed", "waiting", "silent"] as const;
export type NodeState = typeof NODE_STATES[number];

const REFUSED_CONNECTIONS = ["full", "source", "accept-failed"] as const;
type RefusedConnection = typeof REFUSED_CONNECTIONS[number];
const REFUSED_BY_EVENT: Record<HttpEvent, RefusedConnection | undefined> = {
  "accepted": undefined,
  "refused-full": "full",
  "refused-source": "source",
  "accept-failed": "accept-failed",
};

/** Asked when somebody looks. */
export interface CoordSizes {
  nodes(): Record<NodeState, number>;
  heldCalls(): number;
  mailboxes(): MailboxSizes;
}

export interface CoordRequest {
  /** One that the server has, or "other". */
  route: string;
  method: string;
  status: number;
  seconds: number;
}

export class CoordMetrics extends Metrics {
  readonly #nodes = this.gauge("gretun_coord_nodes", "Nodes by state", ["state"]);
  readonly #requests = this.counter(
    "gretun_coord_requests_total",
    "Requests answered, by route, method and status",
    ["route", "method", "status"],
  );
  readonly #durations = this.histogram(
    "gretun_coord_request_duration_seconds",
    "Time to an answer; calls that wait for news are held for up to 25 s",
    REQUEST_BUCKETS_SECONDS,
    ["route", "method"],
  );
  readonly #refused = this.counter(
    "gretun_coord_refused_connections_total",
    "TCP connections turned away, by reason",
    ["reason"],
  );
  readonly #saves = this.histogram(
    "gretun_coord_store_save_duration_seconds",
    "Time to write to the database",
    SAVE_BUCKETS_SECONDS,
  );
  readonly #saveErrors = this.counter(
    "gretun_coord_store_save_errors_total",
    "Writes to the database that failed",
  );
  #sizes: CoordSizes | undefined;

  constructor() {
    super();
    for (const reason of REFUSED_CONNECTIONS) this.#refused.inc({ reason }, 0);
    const mailboxes = () => this.#sizes?.mailboxes() ?? { messages: 0, bytes: 0, deepest: 0 };
    this.gaugeOf(
      "gretun_coord_held_calls",
      "Calls that wait for news",
      () => this.#sizes?.heldCalls() ?? 0,
    );
    this.gaugeOf(
      "gretun_coord_mailbox_messages",
      "Sealed messages that wait for their nodes",
      () => mailboxes().messages,
    );
    this.gaugeOf(
      "gretun_coord_mailbox_bytes",
      "Bytes of those messages",
      () => mailboxes().bytes,
    );
    this.gaugeOf(
      "gretun_coord_mailbox_depth_max",
      "Messages in the fullest mailbox",
      () => mailboxes().deepest,
    );
  }

  watch(sizes: CoordSizes): void {
    this.#sizes = sizes;
  }

  watchConnections(open: () => number): void {
    this.gaugeOf("gretun_coord_connections", "TCP connections that are open", open);
  }

  answered({ route, method, status, seconds }: CoordRequest): void {
    this.#requests.inc({ route, method, status: String(status) });
    this.#durations.observe({ route, method }, seconds);
  }

  connection(event: HttpEvent): void {
    const reason = REFUSED_BY_EVENT[event];
    if (reason) this.#refused.inc({ reason });
  }

  saved(seconds: number): void {
    this.#saves.observe(seconds);
  }

  saveFailed(): void {
    this.#saveErrors.inc();
  }

  override async text(): Promise<string> {
    const nodes = this.#sizes?.nodes();
    for (const state of NODE_STATES) this.#nodes.set({ state }, nodes?.[state] ?? 0);
    return await super.text();
  }
}
