/** Paths that change while data flows, on the kernel plane. */
import { testMoving } from "../../moving_scenarios.ts";

// An emulated processor is some ten times slower than a real one.
testMoving("fou", 2);
