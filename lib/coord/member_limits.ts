/** What one member may ask of all the others by way of the coordinator. Pure: time is an argument. */
import type { DiscoKey, NodeKey } from "../keys.ts";
import { type Rate, SourceLimits } from "../limits.ts";
import { Refusal } from "./refusal.ts";

/** Each change of where a node is goes to everybody. */
const REACH: Rate = { burst: 20, perSecond: 0.5 };
/** From one node to another: in doubt of a path it sends one a second. */
const MESSAGES_TO_ONE: Rate = { burst: 30, perSecond: 1 };
/** From one node: who has moved tells all its peers at once. */
const MESSAGES: Rate = { burst: 4_096, perSecond: 64 };

export class MemberLimits {
  readonly #reach = new SourceLimits({ ...REACH, whenFull: "forget" });
  readonly #toOne = new SourceLimits({ ...MESSAGES_TO_ONE, whenFull: "forget" });
  readonly #messages = new SourceLimits({ ...MESSAGES, whenFull: "forget" });

  /** Throws {@link Refusal}. */
  reach(node: NodeKey, nowMs: number): void {
    refuse(this.#reach.takeOrWait(node, nowMs), "endpoints change too often");
  }

  /** Throws {@link Refusal}. */
  message(from: NodeKey, to: DiscoKey, nowMs: number): void {
    refuse(this.#toOne.takeOrWait(`${from} ${to}`, nowMs), "too many messages to this node");
    refuse(this.#messages.takeOrWait(from, nowMs), "too many messages");
  }
}

function refuse(waitMs: number, what: string): void {
  if (waitMs > 0) throw new Refusal(429, `${what}: try again later`, Math.max(1_000, waitMs));
}
