/** The heart of RFC 8305: several candidates of which the first that works is used. */
import { type Clock, unlessAborted } from "./edges.ts";

export interface StaggerOptions<Result> {
  /** How long a candidate has for itself before the next one is tried beside it. */
  delayMs: number;
  clock: Clock;
  signal: AbortSignal;
  /** For what succeeds too late, such as a connection that another one has beaten. */
  discard?: (result: Result) => void;
}

/**
 * Tries the candidates in their order, the next one when `delayMs` have passed or the one before has
 * failed; the first success ends all others. Throws the signal's reason, or an `AggregateError` of
 * all failures in the order of the candidates.
 */
export async function firstToSucceed<Candidate, Result>(
  candidates: readonly Candidate[],
  attempt: (candidate: Candidate, signal: AbortSignal) => Promise<Result>,
  { delayMs, clock, signal, discard }: StaggerOptions<Result>,
): Promise<Result> {
  signal.throwIfAborted();
  const settled = new AbortController();
  const within = AbortSignal.any([settled.signal, signal]);
  const winner = Promise.withResolvers<Result>();
  const failures: unknown[] = new Array(candidates.length);
  const tryOne = async (candidate: Candidate, i: number) => {
    try {
      const result = await attempt(candidate, within);
      if (within.aborted) discard?.(result);
      else winner.resolve(result);
      settled.abort();
    } catch (error) {
      failures[i] = error;
    }
  };
  try {
    const all = tryInTurn(candidates, tryOne, { delayMs, clock, signal: within })
      .then(() => winner.reject(new AggregateError(failures, "every candidate failed")));
    return await unlessAborted(
      Promise.race([winner.promise, all.then(() => winner.promise)]),
      signal,
    );
  } finally {
    settled.abort();
  }
}

async function tryInTurn<Candidate>(
  candidates: readonly Candidate[],
  tryOne: (candidate: Candidate, i: number) => Promise<void>,
  { delayMs, clock, signal }: { delayMs: number; clock: Clock; signal: AbortSignal },
): Promise<void> {
  const tries: Promise<void>[] = [];
  for (const [i, candidate] of candidates.entries()) {
    if (signal.aborted) break;
    const ended = new AbortController();
    const one = tryOne(candidate, i).finally(() => ended.abort());
    tries.push(one);
    if (i === candidates.length - 1) break;
    await clock.sleep(delayMs, AbortSignal.any([ended.signal, signal])).catch(() => {});
  }
  await Promise.all(tries);
}
