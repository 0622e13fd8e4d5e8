/** Port guessing by `gretun up`, on the kernel plane. */
import { testHardNats } from "../../hard_nat_scenarios.ts";

testHardNats("fou");
