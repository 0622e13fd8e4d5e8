/** Probes of any kind, one after the other, each with a time limit; and what they add up to. */
import type { Clock } from "../edges.ts";
import { errorText } from "../errors.ts";

/** What an attempt that came to an end has found, besides how long it took. */
export interface Answer {
  /** Of HTTP. */
  status?: number;
  /** Why this answer is none that counts. */
  error?: string;
  /** Where it is known better than by when the attempt was called and resolved. */
  rttMs?: number;
}

/**
 * Makes one probe, the `sequence`th from 1, and waits for its answer. What it rejects with is why
 * the probe failed; at `signal` nobody waits for it any more, and it has to let go of what it has.
 */
export type Attempt = (sequence: number, signal: AbortSignal) => Promise<Answer>;

export interface ProbeOptions {
  count: number;
  /** From the start of one probe to the next one's, answered or not. */
  intervalMs: number;
  /** How long an answer may take. */
  timeoutMs: number;
  clock: Clock;
  /** Ends the run early: what has neither an answer nor failed by then is left out. */
  signal?: AbortSignal;
  /** Called as results come, which need not be in the order of the probes. */
  onResult?: (result: ProbeResult) => void;
}

export interface ProbeResult {
  sequence: number;
  /** When it began, in ms since 1970. */
  wallMs: number;
  /** Until its answer; absent when it failed. */
  rttMs?: number;
  status?: number;
  /** Why it failed. */
  error?: string;
}

/** The results in the order of the probes. What `onResult` throws ends the run. */
export async function runProbes(attempt: Attempt, options: ProbeOptions): Promise<ProbeResult[]> {
  const { count, intervalMs, clock, onResult } = options;
  const broken = new AbortController();
  const signal = AbortSignal.any([broken.signal, ...(options.signal ? [options.signal] : [])]);
  const results: ProbeResult[] = [];
  const running = new Set<Promise<void>>();
  for (let sequence = 1; sequence <= count; sequence++) {
    if (sequence > 1) await clock.sleep(intervalMs, signal).catch(() => {});
    if (signal.aborted) break;
    const probe = runProbe(attempt, sequence, { ...options, signal }).then((result) => {
      running.delete(probe);
      if (!result) return;
      results.push(result);
      try {
        onResult?.(result);
      } catch (error) {
        broken.abort(error);
      }
    });
    running.add(probe);
  }
  await Promise.all(running);
  broken.signal.throwIfAborted();
  return results.sort((a, b) => a.sequence - b.sequence);
}

/** Undefined when the run ended first. */
async function runProbe(
  attempt: Attempt,
  sequence: number,
  { timeoutMs, clock, signal }: ProbeOptions & { signal: AbortSignal },
): Promise<ProbeResult | undefined> {
  const begun = { sequence, wallMs: clock.wallMs() };
  const end = new AbortController();
  const limit = AbortSignal.any([end.signal, signal]);
  const late = clock.sleep(timeoutMs, limit).then((): Answer => ({ error: noAnswer(timeoutMs) }));
  const startMs = clock.nowMs();
  try {
    const answer = await Promise.race([attempt(sequence, limit), late]);
    const rttMs = answer.rttMs ?? clock.nowMs() - startMs;
    if (answer.error !== undefined) return { ...begun, ...answer };
    if (rttMs > timeoutMs) return { ...begun, error: noAnswer(timeoutMs) };
    return { ...begun, ...answer, rttMs };
  } catch (error) {
    return signal.aborted ? undefined : { ...begun, error: errorText(error) };
  } finally {
    end.abort();
    late.catch(() => {});
  }
}

function noAnswer(timeoutMs: number): string {
  return `no answer in ${timeoutMs / 1000}s`;
}

export interface Statistics {
  sent: number;
  received: number;
  /** 0 to 100; 0 when nothing was sent. */
  lossPercent: number;
  /** Absent when nothing was received. */
  rtt?: { minMs: number; avgMs: number; maxMs: number; stddevMs: number };
}

/** The standard deviation is that of the probes made, not an estimate of others to come. */
export function statistics(results: readonly ProbeResult[]): Statistics {
  const rtts = results.flatMap(({ rttMs }) => rttMs === undefined ? [] : [rttMs]);
  const [sent, received] = [results.length, rtts.length];
  const lossPercent = sent === 0 ? 0 : 100 * (sent - received) / sent;
  if (received === 0) return { sent, received, lossPercent };
  const avgMs = average(rtts);
  const stddevMs = Math.sqrt(average(rtts.map((ms) => (ms - avgMs) ** 2)));
  const minMs = rtts.reduce((least, ms) => Math.min(least, ms));
  const maxMs = rtts.reduce((most, ms) => Math.max(most, ms));
  return { sent, received, lossPercent, rtt: { minMs, avgMs, maxMs, stddevMs } };
}

function average(numbers: readonly number[]): number {
  return numbers.reduce((sum, n) => sum + n, 0) / numbers.length;
}
