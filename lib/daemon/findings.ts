/** What is wrong with this node's surroundings, as far as it can tell: in the log once, and in reports. */
import type { Log } from "../edges.ts";
import type { Finding } from "./peer_report.ts";

export type FindingKind =
  | "twin"
  | "clock"
  | "port-filtered"
  | "rp-filter"
  | "all-peers-lost"
  | "no-relay"
  | "loopback-filtered";

export interface NodeFinding extends Finding {
  kind: FindingKind;
}

export class Findings {
  readonly #log: Log;
  readonly #found = new Map<FindingKind, NodeFinding>();

  constructor(log: Log) {
    this.#log = log;
  }

  get list(): NodeFinding[] {
    return [...this.#found.values()];
  }

  found(finding: NodeFinding): void {
    const { kind, text, remedy } = finding;
    const isNew = !this.#found.has(kind);
    this.#found.set(kind, finding);
    if (isNew) this.#log.warn(text, { finding: kind, hint: remedy });
  }

  /** It is so no more. */
  over(kind: FindingKind): void {
    if (this.#found.delete(kind)) this.#log.info("finding is over", { finding: kind });
  }
}
