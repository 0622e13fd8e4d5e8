/**
 * Small networks of namespaces on one machine, made over netlink. Needs root. `tests/lab` has a larger
 * one, of the same parts.
 */
export { LabNode, type RunResult, type SpawnOptions } from "./node.ts";
export { ChildProcesses, endProcesses, namedNetnses } from "./processes.ts";
export { Host, SmallNet } from "./small_net.ts";
export { Space } from "./space.ts";
