/** Whether a gateway has lost its mappings, by the seconds that it counts since it began. */

export interface EpochSeen {
  /** What the gateway said. */
  epochSeconds: number;
  /** When, in monotonic ms of this host. */
  atMs: number;
}

/** RFC 6887 section 8.5. */
export function hasPcpRestarted(before: EpochSeen, now: EpochSeen): boolean {
  if (now.epochSeconds + 1 < before.epochSeconds) return true;
  const clientDelta = (now.atMs - before.atMs) / 1000;
  const serverDelta = now.epochSeconds - before.epochSeconds;
  return clientDelta + 2 < serverDelta - serverDelta / 16 ||
    serverDelta + 2 < clientDelta - clientDelta / 16;
}

/** RFC 6886 section 3.6: behind 7/8 of the time that passed, by more than two seconds. */
export function hasNatPmpRestarted(before: EpochSeen, now: EpochSeen): boolean {
  const elapsed = (now.atMs - before.atMs) / 1000;
  return now.epochSeconds < before.epochSeconds + elapsed * 7 / 8 - 2;
}
