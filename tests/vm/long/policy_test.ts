/** A policy between hosts, on the kernel plane. */
import { RtNetlink } from "../../../lib/netlink.ts";
import { testPolicy } from "../../policy_scenarios.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

testPolicy("fou");
