/**
 * How many pings may go to addresses that have not answered. Who tells us of an address may mean
 * harm to whoever has it: this node must not be the weapon. Pure: time is an argument.
 */
import type { Ip } from "../addr.ts";
import type { NodeKey } from "../keys.ts";
import { type Rate, SourceLimits, sourceNetwork, TokenBucket } from "../limits.ts";

/** Of one peer to one destination: a search over two ports takes 20 pings a round. */
const PAIR: Rate = { burst: 40, perSecond: 2 };
/** The same after many rounds without an answer. */
const PAIR_FOR_LONG: Rate = { burst: 120, perSecond: 0.25 };
/** Of one peer, wherever it says that it is. */
const PEER: Rate = { burst: 128, perSecond: 8 };
/** To one destination, whoever says that it is there; many may be, behind one NAT. */
const DESTINATION: Rate = { burst: 128, perSecond: 4 };
/** The same to places that a ping of the peer's came from, so that liars do not use it up. */
const DESTINATION_HEARD: Rate = { burst: 24, perSecond: 2 };
const ALL: Rate = { burst: 8_000, perSecond: 500 };
/** Of guesses at the ports of a hard NAT: one attempt at random ports. */
const GUESSES: Rate = { burst: 1_100, perSecond: 10 };

export interface UnprovenPing {
  peer: NodeKey;
  to: Ip;
  /** Why it is sent there: a ping of the peer's came from there, somebody said so, or at a guess. */
  because: "heard" | "told" | "guessed";
}

export class PingBudget {
  readonly #pairs = limits(PAIR);
  readonly #pairsForLong = limits(PAIR_FOR_LONG);
  readonly #peers = limits(PEER);
  readonly #told = limits(DESTINATION);
  readonly #heard = limits(DESTINATION_HEARD);
  readonly #guesses = limits(GUESSES);
  readonly #all = new TokenBucket(ALL);

  /** Whether it may be sent; then it counts. */
  take({ peer, to, because }: UnprovenPing, nowMs: number): boolean {
    const destination = sourceNetwork(to);
    // Guessing is agreed on by both sides, one attempt at a time.
    if (because === "guessed") return this.#guesses.take(destination, nowMs);
    const pair = `${peer} ${destination}`;
    const wanted: [SourceLimits, string][] = [
      [this.#pairs, pair],
      [this.#pairsForLong, pair],
      [this.#peers, peer],
      [because === "heard" ? this.#heard : this.#told, destination],
    ];
    // What is refused by one limit costs nothing of the others: it is not sent.
    if (!wanted.every(([limit, source]) => limit.has(source, nowMs))) return false;
    if (!this.#all.take(nowMs)) return false;
    for (const [limit, source] of wanted) limit.take(source, nowMs);
    return true;
  }
}

/** The limit over all stands beside. */
function limits(rate: Rate): SourceLimits {
  return new SourceLimits({ ...rate, whenFull: "forget" });
}
