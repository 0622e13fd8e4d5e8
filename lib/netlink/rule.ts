/** Rules that choose a table of routes (linux/fib_rules.h, `struct fib_rule_hdr`). */
import { Reader, Writer } from "../bytes.ts";
import { AF_INET } from "../linux/mod.ts";
import { decodeAttrs, value } from "./attr.ts";
import { checked } from "./message.ts";

export const RTM_GETRULE = 34;
const FRA_FWMARK = 10;
const FRA_UID_RANGE = 20;
const FIB_RULE_INVERT = 2;
const HEADER_LENGTH = 12;

/** Whose packets a rule is for, where it asks that. */
export interface Rule {
  mark?: number;
  /** The first user that it is for. */
  uid?: number;
  /** It is for all others. */
  isInverted: boolean;
}

export function encodeRuleRequest(): Uint8Array<ArrayBuffer> {
  return new Writer("host").u8(AF_INET).zeros(HEADER_LENGTH - 1).finish();
}

export const decodeRule = checked("rule", (payload: Uint8Array): Rule => {
  const flags = new Reader(payload, "host").skip(8).u32();
  const attrs = decodeAttrs(payload.subarray(HEADER_LENGTH));
  const mark = value.u32(attrs.get(FRA_FWMARK));
  const users = attrs.get(FRA_UID_RANGE);
  return {
    isInverted: (flags & FIB_RULE_INVERT) !== 0,
    ...(mark === undefined ? {} : { mark }),
    ...(users ? { uid: new Reader(users, "host").u32() } : {}),
  };
});
