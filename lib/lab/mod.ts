/**
 * A small internet on one machine: public hosts, NATs and hosts behind them, each a network
 * namespace, made over netlink. Needs root.
 *
 * @example
 * await using lab = Lab.create({ prefix: "demo-" });
 * const server = lab.publicHost("server", { delayMs: 10 });
 * const host = lab.host("alice", { behind: lab.nat("home") });
 * const { code } = await host.run("ping", ["-c", "1", server.ip]);
 */
export { Host, LabNode, type RunResult, type SpawnOptions } from "./host.ts";
export { Lab, type LabOptions, type NatOptions, type PublicHostOptions } from "./lab.ts";
export type { Nat } from "./nat.ts";
export { NAT_MAPPINGS, type NatMapping } from "./nat_table.ts";
