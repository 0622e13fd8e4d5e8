/** Paths of the kernel plane that carry less than their routes say. */
import { testPathMtu } from "../../path_mtu_scenarios.ts";

testPathMtu("fou");
