/** Port guessing by `gretun up`, on the user-space plane. */
import { testHardNats } from "../hard_nat_scenarios.ts";

testHardNats("tun");
