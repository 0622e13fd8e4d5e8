/** Who was refused and why, for people to see: not more often than they can read. */
import { type Endpoint, formatEndpoint } from "../addr.ts";
import type { Clock, Log } from "../edges.ts";
import type { Refusal } from "./protocol/gretun/auth.ts";

/** A flood must not fill the log. */
const GAP_MS = 10_000;
const HINTS: Partial<Record<Refusal, string>> = {
  "unknown-client": "no file of the clients' directory has this name",
  "wrong-address": "its file has another remote",
  "wrong-hub-address": "it calls the hub by an address that --public-address does not have",
  "bad-mac": "keys, token or secret are not those of its file",
  "bad-proof": "keys or secret are not those of a file",
  "bad-token": "the token is not that of a file",
  "stale": "clocks differ by more than --max-time-discrepancy",
  "replayed": "the packet was used before",
};

export class RefusalLog {
  readonly #clock: Clock;
  readonly #log: Log;
  #loggedMs = -Infinity;

  constructor({ clock, log }: { clock: Clock; log: Log }) {
    this.#clock = clock;
    this.#log = log;
  }

  refused(reason: Refusal, from: Endpoint, client: string | undefined): void {
    const nowMs = this.#clock.nowMs();
    const isDue = nowMs - this.#loggedMs >= GAP_MS;
    if (isDue) this.#loggedMs = nowMs;
    const fields = { client, endpoint: formatEndpoint(from), reason, hint: HINTS[reason] };
    this.#log[isDue ? "warn" : "debug"]("client refused", fields);
  }
}
