/** `gretun up` through a relay, on the kernel plane. */
import { testRelays } from "../../relay_scenarios.ts";

testRelays("fou");
