/** Memory of programs that run for long. */
import { systemClock } from "../edges.ts";
import { giveMemoryBack, trimHeap } from "../linux/mod.ts";

/** What a program starts with is done by then, and its peers are met. */
const STARTED_MS = 30_000;
const TRIM_EACH_MS = 120_000;

/** Gives back what only the start needed, and from time to time what a crowd has left, until it is disposed. */
export function returnMemory(clock = systemClock): Disposable {
  const wait = (ms: number, act: () => void): Disposable =>
    clock.timer(ms, () => {
      act();
      timer = wait(TRIM_EACH_MS, trimHeap);
    });
  let timer = wait(STARTED_MS, giveMemoryBack);
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
}
