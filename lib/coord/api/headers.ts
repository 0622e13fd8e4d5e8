/** Headers of the coordinator's own, besides those of signed requests. */
import type { HeaderFields } from "../../server_http.ts";

/** Of a request: names it among all of its node. */
export const NONCE_HEADER = "x-gretun-nonce";
/** Base64 of the coordinator's key: of a request, whom it is signed for; of an answer, who signed it. */
export const COORDINATOR_HEADER = "x-gretun-coordinator";
/** Of a request: names one run of a node's program, new at each start. */
export const INSTANCE_HEADER = "x-gretun-instance";
/** Of a refusal that programs tell from others. */
export const REFUSAL_HEADER = "x-gretun-refusal";
/** Of an answer: another host that uses the node's key, by its address. */
export const CLONE_HEADER = "x-gretun-clone";

/** What {@link REFUSAL_HEADER} says. */
export type RefusalCode =
  /** The timestamp is too far from the coordinator's clock. */
  | "clock"
  /** Another host that uses this node's key was there first. */
  | "clone"
  /** A token is needed to join, and what was given is none that is good. */
  | "token"
  /** The operator has to approve the node first. */
  | "approval"
  /** The operator has ended its membership. */
  | "expired"
  /** The request is not signed for this coordinator's key, which the answer names. */
  | "key"
  /** The node's program is older than this coordinator takes. */
  | "v1"
  /** This very request has come before. */
  | "replay";

const NONCE_PATTERN = /^[A-Za-z0-9+/=]{16,64}$/;

/** {@link NONCE_HEADER} of a request, where it is one. */
export function readNonce(headers: HeaderFields): string | undefined {
  const text = headers.get(NONCE_HEADER);
  return text !== null && NONCE_PATTERN.test(text) ? text : undefined;
}

/** {@link INSTANCE_HEADER} of a request, where it is one. */
export function readInstance(headers: HeaderFields): string | undefined {
  const text = headers.get(INSTANCE_HEADER);
  return text !== null && /^[0-9A-Za-z_-]{8,64}$/.test(text) ? text : undefined;
}
