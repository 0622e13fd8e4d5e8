/** Strangers on the network, on the kernel plane. */
import { testStrangers } from "../../hostile_scenarios.ts";

testStrangers("fou", 2_000);
