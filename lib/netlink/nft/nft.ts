/**
 * nf_tables over netlink (linux/netfilter/nfnetlink.h, nf_tables.h): a table with its chains and
 * rules as one value, which the kernel takes as a whole or not at all. Attributes are in network
 * order.
 */
import { Writer } from "../../bytes.ts";
import { type Attr, attr, encodeAttrs } from "../attr.ts";
import { AF_INET, AF_INET6 } from "../libc.ts";
import {
  NetlinkConnection,
  NetlinkError,
  type NetlinkTransport,
  NLM_F_ACK,
  NLM_F_CREATE,
  type Request,
} from "../message.ts";
import { NETLINK_NETFILTER, openNetlink } from "../transport.ts";
import {
  counter,
  encodeExpressions,
  type Expression,
  type Match,
  type Verdict,
  verdictExpressions,
} from "./expr.ts";

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
const NFNETLINK_V0 = 0;
const NFT_MSG_NEWTABLE = 0;
const NFT_MSG_DELTABLE = 2;
const NFT_MSG_NEWCHAIN = 3;
const NFT_MSG_NEWRULE = 6;
const NFT_MSG_NEWSET = 9;
const NLM_F_APPEND = 0x800;

const NFTA_TABLE_NAME = 1;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_HOOK_PRIORITY = 2;
const NFTA_SET_TABLE = 1;
const NFTA_SET_NAME = 2;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_TYPE = 4;
const NFTA_SET_KEY_LEN = 5;
const NFTA_SET_DATA_TYPE = 6;
const NFTA_SET_DATA_LEN = 7;
const NFTA_SET_ID = 10;
const NFT_SET_MAP = 1 << 3;
const NFT_SET_EVAL = 1 << 5;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;

const NFPROTO = { inet: 1, ip: AF_INET, ip6: AF_INET6 } as const;
/** nft's own numbers of types: they tell it how to show elements. Each takes 4 bytes. */
const ELEMENT_TYPE = { address: 7, port: 13 } as const;
const ELEMENT_TYPE_BITS = 6;
/** `enum nf_inet_hooks`, linux/netfilter.h. */
const HOOKNUM = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;
const POLICY = { drop: 0, accept: 1 } as const;
/** linux/netfilter_ipv4.h, under the names that nft gives them. */
export const PRIORITY = { dstnat: -100, filter: 0, srcnat: 100 } as const;

/** "inet" sees IPv4 and IPv6. */
export type NftFamily = keyof typeof NFPROTO;

/** A base chain: the kernel runs it for every packet at its hook. */
export interface NftChain {
  name: string;
  type: "filter" | "nat";
  hook: keyof typeof HOOKNUM;
  /** Lower runs earlier: see {@link PRIORITY}. */
  priority: number;
  /** What happens to packets that no rule decided about. */
  policy: keyof typeof POLICY;
}

type ElementType = keyof typeof ELEMENT_TYPE;

/** A set that rules fill; with values it is a map. Elements stay as long as the table. */
export interface NftSet {
  name: string;
  element: readonly ElementType[];
  value?: readonly ElementType[];
}

export interface NftRule {
  /** The name of a chain of the same table. */
  chain: string;
  /** All of them have to hold; none: every packet. */
  match?: readonly Match[];
  /** Counts the matching packets: `nft list ruleset` shows them. */
  counter?: boolean;
  /** Without one, the packet goes on to the next rule. */
  verdict?: Verdict;
}

export interface NftTable {
  family: NftFamily;
  name: string;
  chains: readonly NftChain[];
  sets?: readonly NftSet[];
  /** In the order in which their chains run them. */
  rules: readonly NftRule[];
}

/** The kernel refused a table; nothing of it is there. */
export class NftError extends NetlinkError {
  override name = "NftError";
  override readonly hint = this.code === "EPERM"
    ? "Run as root, or give the program CAP_NET_ADMIN with setcap"
    : "Check that the kernel has nf_tables with NAT (modprobe nft_chain_nat nft_masq nft_ct)";
}

/** Tables of one network namespace. Every method throws {@link NftError}. */
export class Nft implements Disposable {
  readonly #connection: NetlinkConnection;

  /** In the network namespace of the calling thread, or over a fake kernel. */
  static open(transport: NetlinkTransport = openNetlink(NETLINK_NETFILTER)): Nft {
    return new Nft(transport);
  }

  private constructor(transport: NetlinkTransport) {
    this.#connection = new NetlinkConnection(transport);
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }

  /** Makes the table, in place of one of the same name; packets see the old or the new one. */
  replaceTable(table: NftTable): void {
    const { family, name } = table;
    // Deleting asks for a table that exists, so an empty one is made for it to be sure.
    this.#apply([newTable(family, name), deleteTable(family, name), ...tableRequests(table)]);
  }

  /** ENOENT when there is none. */
  deleteTable(family: NftFamily, name: string): void {
    this.#apply([deleteTable(family, name)]);
  }

  #apply(requests: readonly Request[]): void {
    try {
      this.#connection.batch(inBatch(requests));
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      throw new NftError(error.operation, error.errno, error.extack);
    }
  }
}

/** The requests that make a table which is not there yet. */
export function tableRequests(table: NftTable): Request[] {
  return [
    newTable(table.family, table.name),
    ...(table.sets ?? []).map((set, i) => newSet(table, set, i)),
    ...table.chains.map((chain) => newChain(table, chain)),
    ...table.rules.map((rule, i) => newRule(table, rule, i)),
  ];
}

/** Every request asks for an ack, so that an error can be told from where it came. */
function inBatch(requests: readonly Request[]): Request[] {
  const bound = (type: number): Request => ({
    type,
    payload: nfgenmsg(0, NFNL_SUBSYS_NFTABLES, []),
    operation: "change nf_tables",
  });
  return [
    bound(NFNL_MSG_BATCH_BEGIN),
    ...requests.map((request) => ({ ...request, flags: (request.flags ?? 0) | NLM_F_ACK })),
    bound(NFNL_MSG_BATCH_END),
  ];
}

function newTable(family: NftFamily, name: string): Request {
  return {
    type: messageType(NFT_MSG_NEWTABLE),
    flags: NLM_F_CREATE,
    payload: nfgenmsg(NFPROTO[family], 0, [attr.string(NFTA_TABLE_NAME, name)]),
    operation: `add table ${family} ${name}`,
  };
}

function deleteTable(family: NftFamily, name: string): Request {
  return {
    type: messageType(NFT_MSG_DELTABLE),
    payload: nfgenmsg(NFPROTO[family], 0, [attr.string(NFTA_TABLE_NAME, name)]),
    operation: `delete table ${family} ${name}`,
  };
}

function newChain({ family, name: table }: NftTable, chain: NftChain): Request {
  const hook = [
    attr.be32(NFTA_HOOK_HOOKNUM, HOOKNUM[chain.hook]),
    attr.be32(NFTA_HOOK_PRIORITY, chain.priority),
  ];
  const attrs = [
    attr.string(NFTA_CHAIN_TABLE, table),
    attr.string(NFTA_CHAIN_NAME, chain.name),
    attr.nested(NFTA_CHAIN_HOOK, hook),
    attr.be32(NFTA_CHAIN_POLICY, POLICY[chain.policy]),
    attr.string(NFTA_CHAIN_TYPE, chain.type),
  ];
  return {
    type: messageType(NFT_MSG_NEWCHAIN),
    flags: NLM_F_CREATE,
    payload: nfgenmsg(NFPROTO[family], 0, attrs),
    operation: `add chain ${chain.name} to table ${family} ${table}`,
  };
}

/** `index` is its number inside of the batch. */
function newSet({ family, name: table }: NftTable, set: NftSet, index: number): Request {
  const attrs = [
    attr.string(NFTA_SET_TABLE, table),
    attr.string(NFTA_SET_NAME, set.name),
    attr.be32(NFTA_SET_FLAGS, NFT_SET_EVAL | (set.value ? NFT_SET_MAP : 0)),
    attr.be32(NFTA_SET_KEY_TYPE, concatenatedType(set.element)),
    attr.be32(NFTA_SET_KEY_LEN, elementLength(set.element)),
    attr.be32(NFTA_SET_ID, index + 1),
  ];
  if (set.value) {
    attrs.push(attr.be32(NFTA_SET_DATA_TYPE, concatenatedType(set.value)));
    attrs.push(attr.be32(NFTA_SET_DATA_LEN, elementLength(set.value)));
  }
  return {
    type: messageType(NFT_MSG_NEWSET),
    flags: NLM_F_CREATE,
    payload: nfgenmsg(NFPROTO[family], 0, attrs),
    operation: `add set ${set.name} to table ${family} ${table}`,
  };
}

function concatenatedType(types: readonly ElementType[]): number {
  return types.reduce((bits, type) => bits << ELEMENT_TYPE_BITS | ELEMENT_TYPE[type], 0);
}

/** A port alone takes its two bytes, in a row with others a whole register. */
function elementLength(types: readonly ElementType[]): number {
  return types.length === 1 && types[0] === "port" ? 2 : 4 * types.length;
}

/** `index` counts all of the table's rules from 0. */
function newRule({ family, name: table }: NftTable, rule: NftRule, index: number): Request {
  const attrs = [
    attr.string(NFTA_RULE_TABLE, table),
    attr.string(NFTA_RULE_CHAIN, rule.chain),
    attr.nested(NFTA_RULE_EXPRESSIONS, encodeExpressions(ruleExpressions(rule))),
  ];
  return {
    type: messageType(NFT_MSG_NEWRULE),
    flags: NLM_F_CREATE | NLM_F_APPEND,
    payload: nfgenmsg(NFPROTO[family], 0, attrs),
    operation: `add rule ${index + 1} to chain ${rule.chain} of table ${family} ${table}`,
  };
}

function ruleExpressions(rule: NftRule): Expression[] {
  return [
    ...(rule.match ?? []).flat(),
    ...(rule.counter ? [counter()] : []),
    ...(rule.verdict ? verdictExpressions(rule.verdict) : []),
  ];
}

function messageType(message: number): number {
  return NFNL_SUBSYS_NFTABLES << 8 | message;
}

/** `struct nfgenmsg`: family, version, resource id in network order; 4 bytes. Then attributes. */
function nfgenmsg(family: number, resource: number, attrs: readonly Attr[]) {
  return new Writer("network").u8(family).u8(NFNETLINK_V0).u16(resource)
    .bytes(encodeAttrs(attrs)).finish();
}
