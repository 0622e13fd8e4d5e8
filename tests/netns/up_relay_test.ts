/** `gretun up` through a relay, on the user-space plane. */
import { testRelays } from "../relay_scenarios.ts";

testRelays("tun");
