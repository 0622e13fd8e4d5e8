/** Strangers on the network, on the user-space plane. */
import { testStrangers } from "../hostile_scenarios.ts";

testStrangers("tun", 20_000);
