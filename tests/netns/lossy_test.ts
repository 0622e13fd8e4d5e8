/** A long line that loses every fifth packet: nodes meet all the same, on the user-space plane. */
import { testLossyLine } from "../moving_scenarios.ts";

testLossyLine("tun", (lab) => lab.nat("nat-a", { uplink: { delayMs: 200, lossRate: 0.2 } }));
