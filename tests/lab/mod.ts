/**
 * A small internet on one machine: public hosts, NATs and hosts behind them, each a network
 * namespace, made over netlink. Needs root.
 *
 * @example
 * await using lab = Lab.create({ prefix: "demo-" });
 * const server = lab.publicHost("server", { delayMs: 10 });
 * const nat = lab.nat("home", { mapping: "address-and-port-dependent", ports: "sequential" });
 * const host = lab.host("alice", { behind: nat });
 * const { code } = await host.run("ping", ["-c", "1", server.ip]);
 */
export { LabNode, type RunResult, type SpawnOptions } from "../../lib/lab/mod.ts";
export { Host } from "./host.ts";
export {
  type HostOptions,
  Lab,
  type LabOptions,
  type NatOptions,
  type PublicHostOptions,
  type UplinkOptions,
} from "./lab.ts";
export type { Families } from "./addresses.ts";
export type { LineQuality } from "./delay.ts";
export type { Nat } from "./nat.ts";
export {
  type EgressFirewall,
  type Filtering,
  FILTERINGS,
  type Mapping,
  MAPPINGS,
  type NatBehaviour,
  NO_UDP,
  PORT_CHOICES,
  type PortChoice,
  SYMMETRIC,
} from "./nat_table.ts";
