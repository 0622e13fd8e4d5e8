/** `gretun up` on the user-space plane, through real NATs in namespaces. */
import { testOverlays } from "../up_scenarios.ts";

testOverlays("tun");
