/** Memory of programs that run for long. */
import { systemClock } from "../edges.ts";
import { giveMemoryBack } from "../linux/mod.ts";

/** What a program starts with is done by then, and its peers are met. */
const STARTED_MS = 30_000;

/** Gives back what only the start needed, once: pages that are needed all the same are read again. */
export function returnMemory(clock = systemClock): Disposable {
  return clock.timer(STARTED_MS, giveMemoryBack);
}
