/**
 * A kernel's nf_tables without its packets: tables with rules and sets, which a batch changes as a
 * whole or not at all.
 */
import { toHex, Writer } from "../../lib/bytes.ts";
import { attr, decodeAttrList, decodeAttrs, encodeAttrs, value } from "../../lib/netlink/attr.ts";
import {
  type NetlinkReply,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_MULTI,
} from "../../lib/netlink/message.ts";
import { Nft } from "../../lib/nft/mod.ts";
import { ack, done, FakeTransport, reply } from "./kernel.ts";

const BATCH_BEGIN = 16;
const NFT_MSG = {
  ...{
    NEWTABLE: 0,
    GETTABLE: 1,
    DELTABLE: 2,
    NEWCHAIN: 3,
    DELCHAIN: 5,
    NEWRULE: 6,
    GETRULE: 7,
    NEWSET: 9,
  },
  ...{ NEWSETELEM: 12, DELSETELEM: 14 },
};
const NLM_F_EXCL = 0x200;
const ENOENT = 2;
const EEXIST = 17;
const EOPNOTSUPP = 95;
const FAMILIES: Record<number, string> = { 1: "inet", 2: "ip", 5: "netdev", 10: "ip6" };

interface FakeTable {
  /** The chain of each. */
  rules: string[];
  /** By name: keys and values in hex. */
  sets: Map<string, Map<string, string>>;
}

export class NftKernel {
  /** By family and name. */
  tables = new Map<string, FakeTable>();
  isThere = true;
  /** Chains at devices, since Linux 5.16. */
  hasEgress = true;
  /** Devices that are not there, for such chains. */
  readonly missingDevices = new Set<string>();
  readonly #watchers = new Set<() => void>();
  #before = this.tables;
  /** A request of the batch was, and what follows in it is not looked at. */
  #isRefused = false;

  open(): Nft {
    return Nft.open(new FakeTransport((request) => this.#answer(request)));
  }

  watch(onChange: () => void): Disposable {
    this.#watchers.add(onChange);
    return { [Symbol.dispose]: () => this.#watchers.delete(onChange) };
  }

  /** As `nft flush ruleset` does. */
  flush(): void {
    this.tables.clear();
    for (const onChange of this.#watchers) onChange();
  }

  /** Keys of a set's elements, in hex. */
  elements(table: string, set: string): string[] {
    return [...this.tables.get(table)?.sets.get(set)?.keys() ?? []].sort();
  }

  #answer(request: NetlinkReply): Uint8Array[] {
    if (request.type === BATCH_BEGIN) {
      this.#before = structuredClone(this.tables);
      this.#isRefused = false;
    }
    if ((request.flags & NLM_F_DUMP) === NLM_F_DUMP) return this.#dumpRules(request);
    if ((request.flags & NLM_F_ACK) === 0) return [];
    const isQuestion = (request.type & 0xff) === NFT_MSG.GETTABLE;
    if (this.#isRefused && !isQuestion) return [ack(request)];
    const errno = this.isThere ? this.#change(request) : EOPNOTSUPP;
    if (errno && !isQuestion) [this.tables, this.#isRefused] = [this.#before, true];
    return [ack(request, { errno })];
  }

  #dumpRules(request: NetlinkReply): Uint8Array[] {
    const rules = this.tables.get(tableOf(request))?.rules ?? [];
    const one = (chain: string) => {
      const attrs = encodeAttrs([attr.string(2, chain)]);
      const payload = new Writer("network").u32(0).bytes(attrs).finish();
      return reply(request, { type: NFT_MSG.NEWRULE, flags: NLM_F_MULTI, payload });
    };
    return [...rules.map(one), done(request)];
  }

  /** By the hook of a chain. */
  #refuses(hook: Uint8Array | undefined): number {
    const device = hook && value.string(decodeAttrs(hook).get(3));
    if (device === undefined) return 0;
    if (!this.hasEgress) return EOPNOTSUPP;
    return this.missingDevices.has(device) ? ENOENT : 0;
  }

  /** An errno, 0 for none. */
  #change(request: NetlinkReply): number {
    const type = request.type & 0xff;
    const attrs = attrsOf(request);
    const name = tableOf(request);
    const table = this.tables.get(name);
    if (type === NFT_MSG.NEWTABLE) {
      if (!table) this.tables.set(name, { rules: [], sets: new Map() });
      return 0;
    }
    if (!table) return ENOENT;
    switch (type) {
      case NFT_MSG.DELTABLE:
        this.tables.delete(name);
        return 0;
      case NFT_MSG.NEWCHAIN:
        return this.#refuses(attrs.get(4));
      case NFT_MSG.NEWRULE:
        table.rules.push(value.string(attrs.get(2))!);
        return 0;
      case NFT_MSG.DELCHAIN:
        table.rules = table.rules.filter((chain) => chain !== value.string(attrs.get(3)));
        return 0;
      case NFT_MSG.NEWSET:
        table.sets.set(value.string(attrs.get(2))!, new Map());
        return 0;
      case NFT_MSG.NEWSETELEM:
      case NFT_MSG.DELSETELEM:
        return changeElements(table, request, type === NFT_MSG.NEWSETELEM);
      default:
        return 0;
    }
  }
}

function changeElements(table: FakeTable, request: NetlinkReply, isNew: boolean): number {
  const attrs = attrsOf(request);
  const set = table.sets.get(value.string(attrs.get(2))!);
  if (!set) return ENOENT;
  for (const { value: element } of decodeAttrList(attrs.get(3)!)) {
    const parts = decodeAttrs(element);
    const dataOf = (type: number) => {
      const nested = parts.get(type);
      return nested ? toHex(decodeAttrs(nested).get(1)!) : "";
    };
    const key = dataOf(1);
    if (!isNew) {
      if (!set.delete(key)) return ENOENT;
    } else if (set.has(key) && request.flags & NLM_F_EXCL) return EEXIST;
    else set.set(key, dataOf(2));
  }
  return 0;
}

const attrsOf = ({ payload }: NetlinkReply) => decodeAttrs(payload.subarray(4));
const tableOf = (request: NetlinkReply) =>
  `${FAMILIES[request.payload[0]!]} ${value.string(attrsOf(request).get(1))}`;
