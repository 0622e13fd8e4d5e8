/** What the parts of a spoke know of each other. */
import type { Cidr, Endpoint, Ip } from "../../addr.ts";
import type { DataPlane, LinkKeys, PlaneOptions } from "../../dataplane/mod.ts";
import type { Credential, Refusal } from "../protocol/gretun/auth.ts";
import type { EndOptions } from "../hub_core.ts";
import type { IpipouScheme } from "../protocol/ipipou/wire.ts";
import type { SockAddr } from "../../linux/mod.ts";
import type { World } from "../world.ts";

/** The name of a spoke's one link. */
export const HUB_LINK = "hub";

export interface SpokeOptions extends EndOptions {
  hub: { host: string; port: number };
  /** The client's identifier. */
  name: string;
  /** Replaces what the hub says. */
  address?: Ip;
  hubAddress?: Ip;
  /** Networks behind the hub. */
  routes: Cidr[];
  credential: Credential;
  ipipou: IpipouScheme;
  /** jtunnel's, 8 bytes. */
  clientId?: Uint8Array;
  /** jtunnel's, whose packets are taken; empty: any. */
  serverIds: string[];
  /** Of ipipou and jtunnel; our own hub says it. 0: none. */
  keepaliveMs: number;
}

export interface SpokeEdges extends World {
  /** At least one address, in the order to try them; throws `GretunError`. */
  resolve: (host: string) => Promise<readonly [Ip, ...Ip[]]>;
}

/** What a spoke tells about its session. */
export interface SpokeStatus {
  state: string;
  observed?: Endpoint;
  encrypt?: boolean;
  authentications: number;
}

export interface SpokeProtocol extends AsyncDisposable {
  readonly plane: DataPlane;
  start(): void;
  /** Asks for a new authentication now. */
  reauth(reason: "moved" | "asked"): void;
  status(): SpokeStatus;
}

/** What a protocol asks of the spoke. */
export interface SpokeCore {
  readonly options: SpokeOptions;
  readonly edges: SpokeEdges;
  readonly planeOptions: PlaneOptions;
  /** Where the hub is. */
  readonly hub: Endpoint;
  readonly isHub: (source: SockAddr) => boolean;
  /** The hub may have another address; and if it does not answer, be tried at another one. */
  lookUpHub(isSilent: boolean): Promise<void>;
  /** Sets the link; false when that failed. */
  setLink(link: {
    local?: Ip;
    peer?: Ip;
    keys?: LinkKeys;
  }): boolean;
  /** Whether the hub is there, as metrics have it. */
  setUp(isUp: boolean): void;
  refused(reason: Refusal): void;
}
