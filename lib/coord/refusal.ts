import type { RefusalCode } from "./api.ts";

/** A call broke a rule; `status` is the HTTP status. */
export class Refusal extends Error {
  override name = "Refusal";
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfterMs?: number,
    readonly code?: RefusalCode,
  ) {
    super(message);
  }
}
