/** What hub and spoke tell the programs of their links. */
import { type Cidr, type Endpoint, formatCidr, formatEndpoint, type Ip } from "../../addr.ts";

export interface LinkFacts {
  ifname: string;
  mtu: number;
  client: string;
  clientId: string;
  local?: Ip;
  peer?: Ip;
  endpoint?: Endpoint;
  routes: readonly Cidr[];
}

/** The environment of a link's program; the first two as jtunnel has them. */
export function linkEnvironment(facts: LinkFacts): Record<string, string> {
  const { local, peer, endpoint } = facts;
  return {
    TUN_DEV_NAME: facts.ifname,
    TUN_CLIENT_ID: facts.clientId,
    GRETUN_CLIENT: facts.client,
    GRETUN_MTU: String(facts.mtu),
    ...(local ? { GRETUN_LOCAL_IP: local } : {}),
    ...(peer ? { GRETUN_PEER_IP: peer } : {}),
    ...(endpoint ? { GRETUN_ENDPOINT: formatEndpoint(endpoint) } : {}),
    GRETUN_ROUTES: facts.routes.map(formatCidr).join(" "),
  };
}
