/** Paths that change while data flows, on the user-space plane. */
import { testMoving } from "../moving_scenarios.ts";

testMoving("tun");
