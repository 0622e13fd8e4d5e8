/** Paths of the kernel plane that carry less than their routes say. */
import { testPathMtu, testSilentRouters } from "../../path_mtu_scenarios.ts";

testPathMtu("fou");

testSilentRouters("tun", "fou");
testSilentRouters("fou", "tun");
