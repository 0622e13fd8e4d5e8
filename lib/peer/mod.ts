/**
 * One peer, as pure policy: the hole-punch reducer with its state and timing, plans against NATs
 * that are hard to cross, pings that wait for their pongs. No clock, no socket, no randomness.
 */
export { AnswerCredit } from "./answer_credit.ts";
export * from "./hard_nat.ts";
export { equalPaths, type PathAddress } from "./path_address.ts";
export * from "./path_mtu.ts";
export { PendingPings } from "./pending.ts";
export { PingBudget, type UnprovenPing } from "./ping_budget.ts";
export { newPeer, step } from "./reducer.ts";
export { SeenIds } from "./seen_ids.ts";
export { isHearsay, type Standing, standing } from "./standing.ts";
export * from "./state.ts";
export { nextTickMs, REFLEXIVE_KEPT_MS } from "./timing.ts";
