/** What users see of the threads that carry packets. */
import { deepStrictEqual, doesNotMatch, match } from "node:assert/strict";
import { dataPathJson } from "../../../lib/daemon/data_path.ts";
import { DaemonMetrics } from "../../../lib/daemon/metrics.ts";
import type { PlaneThreads } from "../../../lib/dataplane/mod.ts";

const threads: PlaneThreads = {
  features: { segments: true, udpSuperPackets: false },
  drops: new Map([["no-path", 3], ["too-big", 0]]),
};

Deno.test("the report has the offloads that are used, and what was dropped", () => {
  deepStrictEqual(dataPathJson(threads), {
    data_path: {
      features: { segments: true, udp_super_packets: false },
      drops: { "no-path": 3 },
    },
  });
  deepStrictEqual(dataPathJson(undefined), {});
});

Deno.test("drops have a counter for each reason from the first scrape, apart from refusals", async () => {
  const metrics = new DaemonMetrics();
  match(await metrics.text(), /^gretun_dropped_packets_total\{reason="no-path"\} 0$/m);
  metrics.watchPlane({ refused: () => new Map([["own-tunnel", 2]]), threads: () => threads });
  const text = await metrics.text();
  match(text, /^gretun_dropped_packets_total\{reason="no-path"\} 3$/m);
  match(text, /^gretun_dropped_packets_total\{reason="send-buffer"\} 0$/m);
  match(text, /^gretun_refused_packets_total\{reason="own-tunnel"\} 2$/m);
  doesNotMatch(text, /^gretun_dropped_packets_total\{reason="own-tunnel"\}/m);
});
