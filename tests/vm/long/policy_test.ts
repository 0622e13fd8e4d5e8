/** A policy between hosts, on the kernel plane. */
import { testPolicy } from "../../policy_scenarios.ts";

testPolicy("fou");
