/** A relay of a role of its own: keeps itself registered with its coordinator. */
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import { keyBase64, type NodeKey } from "../keys.ts";
import { backoffMs } from "../retry.ts";
import { Trouble } from "../trouble.ts";
import type { RelayRegistration } from "./api.ts";
import { type CoordClient, CoordError } from "./client.ts";

/** Between tries of the coordinator. */
const RETRY = { minMs: 500, maxMs: 30_000 };
const FORBIDDEN = 403;

export interface RelayRoleOptions {
  coordinator: Pick<CoordClient, "registerRelay">;
  registration: RelayRegistration;
  relayKey: NodeKey;
  clock: Clock;
  log: Log;
}

export class RelayRole {
  readonly #options: RelayRoleOptions;
  #grantKey: NodeKey | undefined;

  constructor(options: RelayRoleOptions) {
    this.#options = options;
  }

  /** The key that grants are signed with, as the coordinator last told it. */
  get grantKey(): NodeKey | undefined {
    return this.#grantKey;
  }

  /**
   * Registers, and again after a third of each lease, until the signal; a coordinator that is away
   * is tried for ever, and meanwhile what goes through the relay goes on.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { coordinator, registration, clock, log } = this.#options;
    let failures = 0;
    let trouble: Trouble | undefined;
    while (!signal.aborted) {
      let pauseMs;
      try {
        const registered = await coordinator.registerRelay(registration, signal);
        if (!this.#grantKey || failures > 0) log.info("registered with the coordinator");
        this.#grantKey = registered.grantKey;
        pauseMs = registered.leaseSeconds * 1000 / 3;
        failures = 0;
        trouble = undefined;
      } catch (error) {
        if (signal.aborted) return;
        trouble ??= new Trouble(clock);
        const news = trouble.news();
        if (news) this.#warn(error, news === "still" ? { since: trouble.since } : {});
        pauseMs = backoffMs(RETRY, failures++);
      }
      await clock.sleep(pauseMs, signal).catch(() => {});
    }
  }

  #warn(error: unknown, since: { since?: string }): void {
    const { log, relayKey } = this.#options;
    const isUnknown = error instanceof CoordError && error.status === FORBIDDEN;
    log.warn("not registered with the coordinator, trying again", {
      error: errorText(error),
      ...since,
      ...(isUnknown ? { hint: `start it with --relay-key ${keyBase64(relayKey)}` } : {}),
    });
  }
}
