/** NATs that map anew while data flows, on the kernel plane; more in tests/vm/long. */
import { testNewMappings } from "../../moving_scenarios.ts";

testNewMappings("fou");
