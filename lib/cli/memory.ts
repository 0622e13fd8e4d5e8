/** Memory of programs that run for long. */
import { systemClock } from "../edges.ts";
import { giveMemoryBack } from "../linux/mod.ts";

/** What a program starts with is done by then, and its peers are met. */
const FIRST_MS = 30_000;
const AGAIN_MS = 600_000;

/** Gives back from time to time what is needed no more, until it is disposed. */
export function returnMemory(clock = systemClock): Disposable {
  let timer: Disposable;
  const wait = (ms: number) => {
    timer = clock.timer(ms, () => {
      giveMemoryBack();
      wait(AGAIN_MS);
    });
  };
  wait(FIRST_MS);
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
}
