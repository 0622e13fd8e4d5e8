/** Ways of packets of the kernel plane: past its own links, and through programs' sockets. */
import { testForwardingPrograms } from "../relay_scenarios.ts";
import { testOwnWays } from "../up_scenarios.ts";

testOwnWays("fou");
testForwardingPrograms("fou");
