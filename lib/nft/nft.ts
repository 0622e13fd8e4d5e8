/**
 * nf_tables over netlink (linux/netfilter/nfnetlink.h, nf_tables.h): a table with its chains and
 * rules as one value, which the kernel takes as a whole or not at all. Attributes are in network
 * order.
 */
import { Writer } from "../bytes.ts";
import {
  type Attr,
  attr,
  decodeAttrs,
  encodeAttrs,
  hasCode,
  NETLINK_NETFILTER,
  NetlinkConnection,
  NetlinkError,
  type NetlinkTransport,
  NLM_F_ACK,
  NLM_F_CREATE,
  openNetlink,
  type Request,
  value,
} from "../netlink.ts";
import { AF_INET, AF_INET6 } from "../linux/mod.ts";
import {
  counter,
  decodeCounters,
  encodeExpression,
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
const NFT_MSG_GETTABLE = 1;
const NFT_MSG_DELTABLE = 2;
const NFT_MSG_NEWCHAIN = 3;
const NFT_MSG_DELCHAIN = 5;
const NFT_MSG_NEWRULE = 6;
const NFT_MSG_GETRULE = 7;
const NFT_MSG_NEWSET = 9;
const NFT_MSG_NEWSETELEM = 12;
const NFT_MSG_DELSETELEM = 14;
const NLM_F_EXCL = 0x200;
const NLM_F_APPEND = 0x800;

const NFTA_TABLE_NAME = 1;
const NFTA_TABLE_FLAGS = 2;
const NFT_TABLE_F_OWNER = 1 << 1;
const NFTA_LIST_ELEM = 1;
const NFTA_DATA_VALUE = 1;
const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_EXPR = 7;
const NFGENMSG_LENGTH = 4;
/** Attributes have 16 bits for their length; elements go in several messages. */
const ELEMENTS_PER_MESSAGE = 500;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_HOOK_PRIORITY = 2;
const NFTA_HOOK_DEV = 3;
const NFTA_SET_TABLE = 1;
const NFTA_SET_NAME = 2;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_TYPE = 4;
const NFTA_SET_KEY_LEN = 5;
const NFTA_SET_DATA_TYPE = 6;
const NFTA_SET_DATA_LEN = 7;
const NFTA_SET_DESC = 9;
const NFTA_SET_DESC_SIZE = 1;
const NFTA_SET_ID = 10;
const NFT_SET_MAP = 1 << 3;
const NFT_SET_EVAL = 1 << 5;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;

const NFPROTO = { inet: 1, ip: AF_INET, netdev: 5, ip6: AF_INET6 } as const;
/** nft's own numbers of types, by which it shows elements, and their bytes in a row. */
const ELEMENT_TYPE = {
  address: { number: 7, length: 4 },
  address6: { number: 8, length: 16 },
  protocol: { number: 12, length: 4 },
  port: { number: 13, length: 4 },
  mark: { number: 19, length: 4 },
  interface: { number: 20, length: 4 },
} as const;
const ELEMENT_TYPE_BITS = 6;
/** `enum nf_inet_hooks` and `nf_dev_hooks`, linux/netfilter.h. */
const HOOKNUM = {
  ...{ prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const,
  egress: 1,
};
const POLICY = { drop: 0, accept: 1 } as const;
/** linux/netfilter_ipv4.h, under the names that nft gives them. */
export const PRIORITY = { raw: -300, dstnat: -100, filter: 0, srcnat: 100, last: 300 } as const;

/** "inet" sees IPv4 and IPv6, "netdev" what a device sends. */
export type NftFamily = keyof typeof NFPROTO;

/** A base chain: the kernel runs it for every packet at its hook. */
export interface NftChain {
  name: string;
  type: "filter" | "nat";
  hook: keyof typeof HOOKNUM;
  /** At "egress" (Linux 5.16): its name. The chain goes with the device. */
  device?: string;
  /** Lower runs earlier: see {@link PRIORITY}. */
  priority: number;
  /** What happens to packets that no rule decided about. */
  policy: keyof typeof POLICY;
}

type ElementType = keyof typeof ELEMENT_TYPE;

/** A set that rules or programs fill; with values it is a map. */
export interface NftSet {
  name: string;
  element: readonly ElementType[];
  value?: readonly ElementType[];
  /** It gets no more elements than this, and from programs alone: it is looked up in half the time. */
  size?: number;
  /** What it has from the start. */
  elements?: readonly NftElement[];
}

/** Of a set whose elements are a row of addresses, ports and interfaces. */
export interface NftElement {
  /** Every part in network order (an ifindex in the host's), padded with zeros to 4 bytes. */
  key: Uint8Array;
  value?: Uint8Array;
  /** What is done each time that the element is found; it can say that it is not. */
  expression?: Expression;
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
  /** Only this connection may change it, and it goes when that is closed (Linux 5.12). */
  isOwned?: boolean;
  /** In the order in which their chains run them. */
  rules: readonly NftRule[];
}

type TableName = Pick<NftTable, "family" | "name">;

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
    this.#apply([newTable(table), deleteTable(family, name), ...tableRequests(table)]);
  }

  /** To ask costs nothing; a change, also one that is refused, waits for all processors. */
  hasTable(family: NftFamily, name: string): boolean {
    try {
      this.#connection.request({
        type: messageType(NFT_MSG_GETTABLE),
        payload: nfgenmsg(NFPROTO[family], 0, [attr.string(NFTA_TABLE_NAME, name)]),
        operation: `find table ${family} ${name}`,
      });
      return true;
    } catch (error) {
      if (hasCode(error, "ENOENT")) return false;
      throw error;
    }
  }

  /** ENOENT when there is none. */
  deleteTable(family: NftFamily, name: string): void {
    this.#apply([deleteTable(family, name)]);
  }

  /** All of it or nothing. Elements to remove have to be there, those to add must not. */
  changeElements(
    { family, name }: TableName,
    changes: readonly {
      set: string;
      add?: readonly NftElement[];
      remove?: readonly NftElement[];
    }[],
  ): void {
    const request = (type: number, set: string, elements: readonly NftElement[]): Request => ({
      type: messageType(type),
      flags: NLM_F_CREATE | (type === NFT_MSG_NEWSETELEM ? NLM_F_EXCL : 0),
      payload: nfgenmsg(NFPROTO[family], 0, [
        attr.string(NFTA_SET_ELEM_LIST_TABLE, name),
        attr.string(NFTA_SET_ELEM_LIST_SET, set),
        attr.nested(NFTA_SET_ELEM_LIST_ELEMENTS, elements.map(encodeElement)),
      ]),
      operation: `change elements of set ${set} of table ${family} ${name}`,
    });
    const some = (type: number, set: string, elements: readonly NftElement[] = []) =>
      elements.length === 0 ? [] : [request(type, set, elements)];
    const requests = [
      ...changes.flatMap(({ set, remove }) => some(NFT_MSG_DELSETELEM, set, remove)),
      ...changes.flatMap(({ set, add }) => some(NFT_MSG_NEWSETELEM, set, add)),
    ];
    if (requests.length > 0) this.#apply(requests);
  }

  /** The chain with its rules, in place of one of that name. ENOENT where there is no such device. */
  replaceChain(
    table: TableName,
    chain: NftChain,
    rules: readonly NftRule[],
  ): void {
    this.#apply([
      ...removedChain(table, chain.name),
      newChain(table, chain),
      ...rules.map((rule, i) => newRule(table, rule, i)),
    ]);
  }

  /** Also where there is none. */
  removeChain(table: TableName, chain: string): void {
    this.#apply(removedChain(table, chain));
  }

  /** What the counters of each rule have counted, in the order of the rules. */
  ruleCounters(
    { family, name }: TableName,
  ): { chain: string; packets: number; bytes: number }[] {
    const rules = this.#connection.dump({
      type: messageType(NFT_MSG_GETRULE),
      payload: nfgenmsg(NFPROTO[family], 0, [attr.string(NFTA_RULE_TABLE, name)]),
      operation: `list rules of table ${family} ${name}`,
    });
    return rules.map(({ payload }) => {
      const attrs = decodeAttrs(payload.subarray(NFGENMSG_LENGTH));
      const chain = value.string(attrs.get(NFTA_RULE_CHAIN)) ?? "";
      return { chain, ...decodeCounters(attrs.get(NFTA_RULE_EXPRESSIONS) ?? new Uint8Array()) };
    });
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
    newTable(table),
    ...(table.sets ?? []).flatMap((
      set,
      i,
    ) => [newSet(table, set, i), ...firstElements(table, set)]),
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

function newTable({ family, name, isOwned = false }: NftTable): Request {
  const attrs = [
    attr.string(NFTA_TABLE_NAME, name),
    ...(isOwned ? [attr.be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER)] : []),
  ];
  return {
    type: messageType(NFT_MSG_NEWTABLE),
    flags: NLM_F_CREATE,
    payload: nfgenmsg(NFPROTO[family], 0, attrs),
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

/** Deleting asks for a chain that exists: one without a hook is made for it to be sure. */
function removedChain({ family, name: table }: TableName, name: string): Request[] {
  const attrs = [attr.string(NFTA_CHAIN_TABLE, table), attr.string(NFTA_CHAIN_NAME, name)];
  return [NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN].map((type) => ({
    type: messageType(type),
    flags: type === NFT_MSG_NEWCHAIN ? NLM_F_CREATE : 0,
    payload: nfgenmsg(NFPROTO[family], 0, attrs),
    operation: `remove chain ${name} from table ${family} ${table}`,
  }));
}

function newChain({ family, name: table }: TableName, chain: NftChain): Request {
  const hook = [
    attr.be32(NFTA_HOOK_HOOKNUM, HOOKNUM[chain.hook]),
    attr.be32(NFTA_HOOK_PRIORITY, chain.priority),
    ...(chain.device === undefined ? [] : [attr.string(NFTA_HOOK_DEV, chain.device)]),
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
  const isFilledByRules = set.size === undefined;
  const attrs = [
    attr.string(NFTA_SET_TABLE, table),
    attr.string(NFTA_SET_NAME, set.name),
    attr.be32(NFTA_SET_FLAGS, (isFilledByRules ? NFT_SET_EVAL : 0) | (set.value ? NFT_SET_MAP : 0)),
    attr.be32(NFTA_SET_KEY_TYPE, concatenatedType(set.element)),
    attr.be32(NFTA_SET_KEY_LEN, elementLength(set.element)),
    attr.be32(NFTA_SET_ID, index + 1),
  ];
  if (set.size !== undefined) {
    attrs.push(attr.nested(NFTA_SET_DESC, [attr.be32(NFTA_SET_DESC_SIZE, set.size)]));
  }
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

function firstElements({ family, name: table }: NftTable, set: NftSet): Request[] {
  const { name, elements = [] } = set;
  const messages: Request[] = [];
  for (let i = 0; i < elements.length; i += ELEMENTS_PER_MESSAGE) {
    const part = elements.slice(i, i + ELEMENTS_PER_MESSAGE).map(encodeElement);
    messages.push({
      type: messageType(NFT_MSG_NEWSETELEM),
      flags: NLM_F_CREATE,
      payload: nfgenmsg(NFPROTO[family], 0, [
        attr.string(NFTA_SET_ELEM_LIST_TABLE, table),
        attr.string(NFTA_SET_ELEM_LIST_SET, name),
        attr.nested(NFTA_SET_ELEM_LIST_ELEMENTS, part),
      ]),
      operation: `fill set ${name} of table ${family} ${table}`,
    });
  }
  return messages;
}

function encodeElement({ key, value, expression }: NftElement): Attr {
  const data = (type: number, bytes: Uint8Array) =>
    attr.nested(type, [attr.bytes(NFTA_DATA_VALUE, bytes)]);
  return attr.nested(NFTA_LIST_ELEM, [
    data(NFTA_SET_ELEM_KEY, key),
    ...(value ? [data(NFTA_SET_ELEM_DATA, value)] : []),
    ...(expression ? [attr.nested(NFTA_SET_ELEM_EXPR, encodeExpression(expression))] : []),
  ]);
}

function concatenatedType(types: readonly ElementType[]): number {
  return types.reduce((bits, type) => bits << ELEMENT_TYPE_BITS | ELEMENT_TYPE[type].number, 0);
}

/** A port alone takes its two bytes, in a row with others a whole register. */
function elementLength(types: readonly ElementType[]): number {
  if (types.length === 1 && types[0] === "port") return 2;
  return types.reduce((sum, type) => sum + ELEMENT_TYPE[type].length, 0);
}

/** `index` counts all of the table's rules from 0. */
function newRule({ family, name: table }: TableName, rule: NftRule, index: number): Request {
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
