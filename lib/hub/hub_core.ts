/** What the parts of a hub know of each other. */
import type { Endpoint, Ip } from "../addr.ts";
import type {
  DataPlane,
  EncapCsum,
  HubPlaneKind,
  PlaneOptions,
  WantedLink,
} from "../dataplane/mod.ts";
import type { Datagram, Log } from "../edges.ts";
import { errorFields } from "../errors.ts";
import type { Refusal } from "./protocol/gretun/auth.ts";
import type { ClientFile } from "./clients.ts";
import type { HubClient } from "./hub_policy.ts";
import type { HubMetrics } from "./metrics.ts";
import type { ProgramOptions } from "./programs/program.ts";
import type { World } from "./world.ts";

export type ProtocolName = "gretun" | "ipipou" | "jtunnel";

/** What a hub and a spoke are both told. */
export interface EndOptions {
  protocol: ProtocolName;
  dataPlane: HubPlaneKind | "auto";
  port: number;
  bind?: Ip;
  ifnamePattern: string;
  mtu?: number;
  encapCsum: EncapCsum;
  allowFragments: boolean;
  stateDir: string;
  encrypt: boolean;
  program: string[];
  /** When its program fails a client of the hub is disconnected, and a spoke ends. */
  programMustSucceed: boolean;
  programGraceMs: number;
  onUp?: string;
  onDown?: string;
  metrics: HubMetrics;
}

export interface HubOptions extends EndOptions {
  clientsDir: string;
  /** The hub's inner address on every link whose client's file says no other. */
  address?: Ip;
  ownSeed?: Uint8Array;
  /** For clients whose files have none. */
  secret?: string;
  publicEndpoints: Endpoint[];
  keepaliveMs: number;
  idleMs: number;
  lifetimeMs: number;
  /** jtunnel's, 8 bytes. */
  serverId?: Uint8Array;
  replyOnAuthOk: boolean;
  maxTimeDiscrepancyS: number;
}

/** What both ask of a plane, besides what becomes of signalling. */
export function planeOptionsOf(
  role: "hub" | "spoke",
  { port, bind, ifnamePattern, mtu, encapCsum }: EndOptions,
  log: Log,
): Omit<PlaneOptions, "onDatagram"> {
  return {
    ...{ role, port, portFlag: "--port", ifnamePattern, encapCsum },
    ...(bind ? { bind } : {}),
    ...(mtu ? { mtu } : {}),
    onFault: (what, error) => log.error(what, errorFields(error)),
  };
}

export function programOptionsOf(
  role: "hub" | "spoke",
  { program: argv, programGraceMs: graceMs, onUp, onDown, port }: EndOptions,
  onFailed: ProgramOptions["onFailed"],
): ProgramOptions {
  return {
    ...{ argv, graceMs, stateFile: `${role}-${port}.programs`, onFailed },
    ...(onUp ? { onUp } : {}),
    ...(onDown ? { onDown } : {}),
  };
}

export interface HubEdges extends World {
  /**
   * The configuration as it is now, and the flags that differ; throws `GretunError` when the
   * running one has to go on.
   */
  reread: (running: HubOptions) => Promise<{ options: HubOptions; changed: string[] }>;
}

/** One client of the directory, and what it is doing. */
export interface HubEntry {
  file: ClientFile;
  policy: HubClient;
  link?: { ifname: string; mtu: number; local?: Ip; peer?: Ip };
  /** Its program failed: not let in before. */
  retryMs: number;
  notedMs: number;
  roamLoggedMs: number;
  authentications: number;
  roams: number;
}

/** What a protocol does with packets. Errors of its own are bugs. */
export interface HubProtocol {
  readonly plane: DataPlane;
  readonly publicKey?: string;
  /** Inner sources are the business of what runs on the links. */
  readonly takesAnySource: boolean;
  /** What is not data. */
  signal?(datagram: Datagram): void;
  /** Why this client cannot be let in with this protocol; undefined when it can. */
  admit(entry: HubEntry): string | undefined;
  /** Undoes {@link HubProtocol.admit}. */
  forget(entry: HubEntry): void;
  /** The client's link goes: its sessions are no more. */
  disconnected?(entry: HubEntry): void;
  /** What a client's link needs besides addresses. */
  linkExtras?(entry: HubEntry): Pick<WantedLink, "keys">;
  /** As programs are told of the client, in hex. */
  clientId(name: string): string;
  /** The directory was read. */
  looked?(): void;
  /** The core has other options. */
  reconfigured?(): void;
}

/** What a protocol asks of the hub. */
export interface HubCore {
  readonly options: HubOptions;
  readonly edges: HubEdges;
  readonly entries: ReadonlyMap<string, HubEntry>;
  /** The client is there: its link is set. False when that failed. */
  authenticated(entry: HubEntry, from: Endpoint): boolean;
  heard(entry: HubEntry): void;
  /** Packets of the client of that name were carried. */
  carried(name: string): void;
  bye(entry: HubEntry): void;
  refused(reason: Refusal): void;
  /** As {@link HubCore.refused}, and for people to see: of somebody who is where it says. */
  refusedAuthentication(reason: Refusal, from: Endpoint, client?: string): void;
  /** The directory may have changed: it is looked at, and not too often. */
  lookAgain(): void;
}
