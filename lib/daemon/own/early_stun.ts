/**
 * STUN beside registering: the servers that the user gave, or the coordinator's host at the usual
 * port, are asked before the coordinator has named any. Where they are among those that are asked
 * first then, their answer is taken, and a round trip saved.
 */
import { type Endpoint, type Family, familyOf, formatEndpoint } from "../../addr.ts";
import type { QueryOptions, StunAnswer, StunClient, StunServer } from "../../stun/mod.ts";

const TIMEOUT_MS = 2_000;

interface Early {
  servers: readonly StunServer[];
  answers: Promise<StunAnswer[]>;
  /** How they see this node, so far. */
  seen: Endpoint[];
}

export class EarlyStun implements Pick<StunClient, "query"> {
  readonly #stun: Pick<StunClient, "query">;
  #early: Early[] = [];

  constructor(stun: Pick<StunClient, "query">) {
    this.#stun = stun;
  }

  /** Asks servers that may turn out to be the wrong ones. */
  ask(servers: readonly StunServer[], families: readonly Family[]): void {
    for (const family of families) {
      const asked = servers.filter(({ endpoint }) => familyOf(endpoint.ip) === family);
      if (asked.length > 0) this.#askOver(asked);
    }
  }

  #askOver(servers: readonly StunServer[]): void {
    const query = this.#stun.query(servers, { timeoutMs: TIMEOUT_MS, firstOnly: true });
    const early: Early = { servers, answers: query.catch(() => []), seen: [] };
    this.#early.push(early);
    void early.answers.then((answers) => {
      early.seen = answers.map(({ mapped }) => mapped);
      if (answers.length === 0) this.#forget(early);
    });
  }

  /** How the servers that have answered, and were not asked since, see this node. */
  get seen(): Endpoint[] {
    return this.#early.flatMap(({ seen }) => seen);
  }

  /** What was answered early is taken once. */
  async query(servers: readonly StunServer[], options: QueryOptions): Promise<StunAnswer[]> {
    const places = new Set(servers.map(({ endpoint }) => formatEndpoint(endpoint)));
    const early = this.#early.find((early) =>
      early.servers.every(({ endpoint }) => places.has(formatEndpoint(endpoint)))
    );
    if (early) this.#forget(early);
    const answers = await early?.answers ?? [];
    return answers.length > 0 ? answers : await this.#stun.query(servers, options);
  }

  /** The coordinator was long in answering: what STUN said before may not hold any more. */
  forget(): void {
    this.#early = [];
  }

  #forget(early: Early): void {
    this.#early = this.#early.filter((each) => each !== early);
  }
}
