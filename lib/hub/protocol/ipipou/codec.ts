/** Bare IPv4 in user space: whose a packet is, its endpoint says. */
import type { DataCodec } from "../../../dataplane/mod.ts";
import { BARE_OVERHEAD_BYTES } from "./wire.ts";

/** `heard` is told whose packets were carried. */
export function bareCodec(heard?: (name: string) => void): DataCodec {
  return {
    ...{ encapsulation: "bare", signalsApart: true },
    overheadBytes: () => BARE_OVERHEAD_BYTES,
    ...(heard && { heard }),
  };
}
