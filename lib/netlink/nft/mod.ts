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
  ctState,
  daddr,
  dnat,
  dport,
  type Expression,
  iifname,
  l4proto,
  mark,
  masquerade,
  type Match,
  type NatAction,
  oifname,
  saddr,
  snat,
  sport,
  type Verdict,
} from "./expr.ts";
export {
  Nft,
  type NftChain,
  NftError,
  type NftFamily,
  type NftRule,
  type NftTable,
  PRIORITY,
} from "./nft.ts";
