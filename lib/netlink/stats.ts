/** Counters of all links without their settings (`struct if_stats_msg`, linux/if_link.h). */
import { Reader, Writer } from "../bytes.ts";
import { decodeAttrs } from "./attr.ts";
import { decodeStats, type LinkStats } from "./link.ts";
import { checked } from "./message.ts";

export const RTM_GETSTATS = 94;
const IFLA_STATS_LINK_64 = 1;
const FILTER_LINK_64 = 1 << (IFLA_STATS_LINK_64 - 1);

/** Family, three bytes of padding, ifindex (0: all), filter mask; 12 bytes. */
export function encodeStatsRequest(): Uint8Array<ArrayBuffer> {
  return new Writer("host").u32(0).u32(0).u32(FILTER_LINK_64).finish();
}

/** The payload of an `RTM_NEWSTATS` message. */
export const decodeStatsMessage = checked(
  "statistics",
  (payload: Uint8Array): { ifindex: number; stats: LinkStats } => {
    const reader = new Reader(payload, "host").skip(4);
    const ifindex = reader.u32();
    reader.skip(4);
    return { ifindex, stats: decodeStats(decodeAttrs(reader.bytes()).get(IFLA_STATS_LINK_64)) };
  },
);
