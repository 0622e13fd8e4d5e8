/** How the report tells of the threads that carry packets. */
import type { PlaneThreads } from "../dataplane/mod.ts";
import type { DaemonReport } from "./control.ts";

export function dataPathJson(threads: PlaneThreads | undefined): Pick<DaemonReport, "data_path"> {
  if (!threads) return {};
  const { features: { segments, udpSuperPackets }, drops } = threads;
  return {
    data_path: {
      features: {
        segments,
        ...(udpSuperPackets === undefined ? {} : { udp_super_packets: udpSuperPackets }),
      },
      drops: Object.fromEntries([...drops].filter(([, count]) => count > 0)),
    },
  };
}
