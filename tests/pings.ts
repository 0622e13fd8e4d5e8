/**
 * What ping(8) says, by the numbers of the answers: on a busy machine an answer may come late, and is no loss.
 * Its own figures count a late last one as lost: once one was answered it waits for two round trips, not for -W.
 */
import { deepStrictEqual } from "node:assert/strict";
import type { RunResult } from "./lab/mod.ts";

/** Long for an emulated machine. */
const PATIENCE_S = 60;

export interface Pings {
  count?: number;
  gapS?: number;
  /** More arguments of ping(8). */
  args?: readonly string[];
}

interface Runner {
  run(program: string, args: string[]): Promise<RunResult>;
}

/** Fails unless each of the first `count` pings is answered, however late; `explain` says more then. */
export async function pingWithoutLoss(
  from: Runner,
  to: string,
  pings: Pings = {},
  explain: () => string = () => "",
): Promise<void> {
  const { text, answered } = await pingUntilAnswered(from, to, pings);
  const expected = Array.from({ length: pings.count ?? DEFAULT_COUNT }, (_, i) => i + 1);
  deepStrictEqual(answered.toSorted((a, b) => a - b), expected, `${to}: ${text}\n${explain()}`);
}

const DEFAULT_COUNT = 2;

/** Goes on until `count` pings are answered, or for a minute; the numbers of those that were, in order. */
export async function pingUntilAnswered(
  from: Runner,
  to: string,
  { count = DEFAULT_COUNT, gapS = 0.1, args = [] }: Pings = {},
): Promise<{ text: string; answered: number[] }> {
  // With -w it goes on until so many are answered, not until so many are sent.
  const limits = ["-c", `${count}`, "-w", `${PATIENCE_S}`, "-i", `${gapS}`];
  const { stdout, stderr } = await from.run("ping", ["-n", ...limits, ...args, to]);
  // Some of one moment are all counted.
  return { text: stdout + stderr, answered: answeredIn(stdout).slice(0, count) };
}

/** The numbers of those that were answered, each once, in order. */
export function answeredIn(stdout: string): number[] {
  const numbers = [...stdout.matchAll(/bytes from .* icmp_seq=(\d+) /g)].map(([, n]) => Number(n));
  return [...new Set(numbers)];
}

/** The share without answer of those up to the last one that has one: what comes after may still be on its way. */
export function lossIn(answered: readonly number[]): number {
  return answered.length === 0 ? 1 : 1 - answered.length / Math.max(...answered);
}
