/** Paths that change while data flows, on the user-space plane. */
import { testMoving, testNewMappings } from "../moving_scenarios.ts";

testNewMappings("tun");
testMoving("tun");
