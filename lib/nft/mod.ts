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
  byteLimit,
  ctState,
  daddr,
  type Expression,
  fields,
  iifname,
  incoming,
  IP_PROTOCOL,
  isEthernet,
  isIn,
  isIp,
  isNotIn,
  isReply,
  l4proto,
  mapped,
  masquerade,
  type Match,
  type NatAction,
  networkOf,
  oifname,
  outgoing,
  type Part,
  protocolNumber,
  resendTo,
  row,
  setAddress,
  transport,
  transportBytes,
  udpBytes,
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
