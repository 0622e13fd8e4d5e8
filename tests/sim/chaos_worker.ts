/** A thread of `chaos.ts`: runs its share of schedules. */
import { chaos, type Outcome, type Share } from "./chaos.ts";

const thread = self as unknown as {
  onmessage: (event: MessageEvent<Share>) => Promise<void>;
  postMessage(outcome: Outcome): void;
};

thread.onmessage = async ({ data: { first, count, step } }) => {
  for (let seed = first; seed < first + count * step; seed += step) {
    thread.postMessage({ seed, fault: await chaos(seed) });
  }
};
