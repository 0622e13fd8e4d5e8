/** `gretun up` on the user-space plane, through real NATs in namespaces. */
import { testMeeting, testOverlays } from "../up_scenarios.ts";

testMeeting("tun");
testOverlays("tun");
