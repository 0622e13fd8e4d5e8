/** What PCP, NAT-PMP and UPnP-IGD have in common. */
import type { Endpoint, Ip } from "../addr.ts";
import type { Clock, Random } from "../edges.ts";
import type { PortMapNet } from "./net.ts";

/** Best first: PCP guards a mapping by a nonce; UPnP takes the most packets and has the most bugs. */
export const PROTOCOLS = ["pcp", "natpmp", "upnp"] as const;
export type PortMapProtocol = typeof PROTOCOLS[number];

export const PROTOCOL_NAMES: Record<PortMapProtocol, string> = {
  pcp: "PCP",
  natpmp: "NAT-PMP",
  upnp: "UPnP",
};

/** The gateway, and the means to talk to it. */
export interface GatewayAccess {
  gateway: Ip;
  /** This host's address towards the gateway: mappings lead to it. */
  local: Ip;
  net: PortMapNet;
  clock: Clock;
  random: Random;
}

/** A mapping of UDP to `internalPort` of this host. */
export interface MapRequest {
  internalPort: number;
  /** As it should be; the gateway may choose another. */
  external: Endpoint;
  lifetimeSeconds: number;
  /** 12 bytes, by which PCP knows the owner of a mapping again. */
  nonce: Uint8Array;
}

/** What the gateway granted. */
export interface Lease {
  external: Endpoint;
  lifetimeSeconds: number;
}

/** "lost": the gateway has forgotten the mapping, or moved it. "unknown": it did not tell. */
export type LeaseState = "kept" | "lost" | "unknown";

/** A gateway that speaks one of the protocols. */
export interface PortMapper {
  readonly protocol: PortMapProtocol;
  /** Where it told it already. */
  readonly externalIp: Ip | undefined;
  /** Makes a mapping, or renews one. Throws {@link PortMapRefusedError}. */
  map(request: MapRequest, signal: AbortSignal): Promise<Lease>;
  /** Asks without changing anything. Throws {@link PortMapRefusedError}. */
  check(request: MapRequest, lease: Lease, signal: AbortSignal): Promise<LeaseState>;
  /** Throws {@link PortMapRefusedError}. */
  unmap(request: MapRequest, lease: Lease, signal: AbortSignal): Promise<void>;
}

/**
 * Undefined: no answer. Throws {@link PortMapRefusedError} where the protocol is there but of no
 * use, and the signal's reason.
 */
export type Discover = (
  access: GatewayAccess,
  signal: AbortSignal,
) => Promise<PortMapper | undefined>;
