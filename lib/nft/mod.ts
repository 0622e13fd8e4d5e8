/**
 * Packet filter and address translation of one network namespace, without the `nft` program.
 *
 * @example
 * using tables = nft.Nft.open();
 * tables.replaceTable({
 *   family: "ip",
 *   name: "home",
 *   chains: [{
 *     name: "post",
 *     type: "nat",
 *     hook: "postrouting",
 *     priority: nft.PRIORITY.srcnat,
 *     policy: "accept",
 *   }],
 *   rules: [{ chain: "post", match: [nft.oifname("out")], verdict: nft.masquerade() }],
 * });
 */
export {
  add,
  byteLimit,
  ctState,
  daddr,
  dnat,
  dnatTo,
  dport,
  type Expression,
  fields,
  hasNewDestination,
  hasNoWayBack,
  iifname,
  incoming,
  isIn,
  isKeyIn,
  l4proto,
  mapped,
  mark,
  masquerade,
  masqueradeTo,
  type Match,
  type NatAction,
  newPort,
  oifname,
  resendTo,
  saddr,
  setAddress,
  snat,
  snatTo,
  sport,
  transport,
  udpBytes,
  type Value,
  type Verdict,
} from "./expr.ts";
export {
  Nft,
  type NftChain,
  type NftElement,
  NftError,
  type NftFamily,
  type NftRule,
  type NftSet,
  type NftTable,
  PRIORITY,
} from "./nft.ts";
