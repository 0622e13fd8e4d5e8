/** What nodes are told of each other: everything, or what the policy lets them see. */
import type { DiscoKey, NodeKey } from "../keys.ts";
import { type Access, type Policy, type Role, type Rule, wordsOf } from "../policy/policy.ts";
import { type NodeRecord, type PeerList, type PeerRecord, peersJson, toPeer } from "./api.ts";
import { isExpired, type Nodes } from "./nodes.ts";

/** Who is told of changes asked since one of the last few lists, as a rule. */
const MAX_CACHED_LISTS = 256;
/** Of members that are not there, the latest: so many that a list is not much longer for them. */
const MAX_AWAY = 1_000;
/** When nodes were last seen is no change of the list, but should not be old. */
const LIST_KEPT_MS = 5_000;

interface Answer {
  /** JSON, the same bytes for all who are told the same. */
  json: Uint8Array<ArrayBuffer>;
  isNews: boolean;
}

interface Cached {
  etag: string;
  madeMs: number;
  /** All, by address: those that are there, and those that are not. */
  listed: NodeRecord[];
  /** Members only. */
  away: NodeRecord[];
  /** By the etag since when. */
  changes: Map<string, NodeRecord[]>;
  /** By that, or "" for the whole list, and who is told. */
  answers: Map<string, Answer>;
  /** What those that are listed are to the policy, in their order. */
  roles: Role[] | undefined;
  /** What is told of a node, without the policy's part: the same for all viewers. */
  told: Map<NodeRecord, PeerRecord>;
}

/** What one node may open at another, the rules that say so, and whether they see each other. */
export interface Explanation {
  access: Access;
  rules: readonly Rule[];
  isSeen: boolean;
}

export class PeerView {
  readonly #nodes: Nodes;
  #policy: Policy | undefined;
  readonly #roles = new Map<NodeKey, { record: NodeRecord; role: Role }>();
  #cached: Cached | undefined;

  constructor(nodes: Nodes, policy: Policy | undefined) {
    this.#nodes = nodes;
    this.#policy = policy;
  }

  get policy(): Policy | undefined {
    return this.#policy;
  }

  /** Every list may be another one now. */
  setPolicy(policy: Policy): void {
    this.#policy = policy;
    this.#roles.clear();
    this.#nodes.forgetChanges();
  }

  /** Where a node has become another one to the policy, no list can be told by what changed in it. */
  changed(records: readonly NodeRecord[]): void {
    const { policy } = this;
    if (!policy) return;
    let isOther = false;
    for (const { nodeKey } of records) {
      const before = this.#roles.get(nodeKey)?.role;
      const now = this.#nodes.get(nodeKey);
      if (!now) this.#roles.delete(nodeKey);
      else isOther ||= before !== undefined && this.role(policy, now) !== before;
    }
    if (isOther) this.#nodes.forgetChanges();
  }

  /** Node keys and names count where nobody but their owner, or the operator, can have said them. */
  role(policy: Policy, record: NodeRecord): Role {
    const known = this.#roles.get(record.nodeKey);
    if (known?.record === record) return known.role;
    const { nodeKey, isV1, givenName, tags } = record;
    const role = policy.role(wordsOf({
      ...(isV1 ? {} : { nodeKey }),
      ...(givenName === undefined ? {} : { name: givenName }),
      ...(tags ? { tags } : {}),
    }));
    this.#roles.set(nodeKey, { record, role });
    return role;
  }

  sees(a: NodeRecord, b: NodeRecord): boolean {
    const { policy } = this;
    return !policy || policy.sees(this.role(policy, a), this.role(policy, b));
  }

  explain(from: NodeRecord, to: NodeRecord): Explanation | undefined {
    const { policy } = this;
    if (!policy) return undefined;
    const [own, its] = [this.role(policy, from), this.role(policy, to)];
    return {
      access: policy.access(own, its),
      rules: policy.rulesFor(own, its),
      isSeen: policy.sees(own, its),
    };
  }

  /** The node that has this key, if the viewer sees it. */
  seenBy(viewer: NodeRecord, key: { node: NodeKey } | { disco: DiscoKey }): NodeRecord | undefined {
    const other = "node" in key ? this.#nodes.get(key.node) : this.#nodes.withDiscoKey(key.disco);
    return other && this.sees(viewer, other) ? other : undefined;
  }

  /** Undefined: it does not see that node. */
  #tell(viewer: NodeRecord | undefined, record: NodeRecord): PeerRecord | undefined {
    const { policy } = this;
    if (!policy || !viewer) return toPeer(record);
    const [own, its] = [this.role(policy, viewer), this.role(policy, record)];
    if (!policy.sees(own, its)) {
      return viewer.nodeKey === record.nodeKey ? toPeer(record) : undefined;
    }
    const isPinged = policy.access(own, its).icmp;
    return {
      ...this.#toPeer(record),
      inbound: policy.access(its, own),
      ...(isPinged ? {} : { isSilent: true }),
    };
  }

  /**
   * The whole list, or what has changed in it since then, where that is known; nobody as the viewer
   * sees all.
   */
  answer(viewer: NodeRecord | undefined, since: string, nowMs: number): Answer {
    const cached = this.#current(nowMs);
    const { changes, answers } = cached;
    const changed = changes.get(since) ?? this.#nodes.changes(since);
    if (changed) changes.set(since, changed); // what is not known could be anything
    const key = `${changed ? since : ""} ${this.#audience(viewer)}`;
    const answer = answers.get(key) ??
      (changed ? this.#some(viewer, since, changed) : this.#whole(viewer, cached));
    if (answers.size >= MAX_CACHED_LISTS) answers.clear();
    answers.set(key, answer);
    return answer;
  }

  #current(nowMs: number): Cached {
    const { etag } = this.#nodes;
    if (this.#cached?.etag === etag && nowMs - this.#cached.madeMs <= LIST_KEPT_MS) {
      return this.#cached;
    }
    const all = this.#nodes.all();
    const listed = all.filter(({ listed }) => listed);
    const away = all.filter((node) => !node.listed && !node.isWaiting && !isExpired(node, nowMs));
    const none = { changes: new Map(), answers: new Map(), roles: undefined, told: new Map() };
    return this.#cached = { etag, madeMs: nowMs, listed, away, ...none };
  }

  /** Names all who are told the same. */
  #audience(viewer: NodeRecord | undefined): string {
    if (!this.#policy || !viewer) return "";
    const { id } = this.role(this.#policy, viewer);
    return this.sees(viewer, viewer) ? id : viewer.nodeKey;
  }

  #peers(viewer: NodeRecord | undefined, records: NodeRecord[]): PeerRecord[] {
    return records.flatMap((record) => this.#tell(viewer, record) ?? []);
  }

  #toPeer(record: NodeRecord): PeerRecord {
    const told = this.#cached?.told.get(record) ?? toPeer(record);
    this.#cached?.told.set(record, told);
    return told;
  }

  /** Of those that are listed, who the viewer may be told of, by address: it asks each role, not each node. */
  #listedFor(viewer: NodeRecord | undefined, cached: Cached): NodeRecord[] {
    const { policy } = this;
    if (!policy || !viewer) return cached.listed;
    const roles = cached.roles ??= cached.listed.map((record) => this.role(policy, record));
    const own = this.role(policy, viewer);
    const seen = new Set(roles);
    for (const its of seen) if (its !== own && !policy.sees(own, its)) seen.delete(its);
    return cached.listed.filter((_, i) => seen.has(roles[i]!));
  }

  /** The whole list, to go with another answer. */
  list(viewer: NodeRecord, nowMs: number): PeerList {
    return this.#all(viewer, this.#current(nowMs));
  }

  #whole(viewer: NodeRecord | undefined, cached: Cached): Answer {
    return { json: jsonOf(this.#all(viewer, cached)), isNews: true };
  }

  #all(viewer: NodeRecord | undefined, cached: Cached): PeerList {
    const { etag, away } = cached;
    const isByPolicy = this.#policy ? { isByPolicy: true as const } : {};
    const told = this.#policy ? this.#peers(viewer, away) : latest(away);
    return {
      etag,
      peers: this.#peers(viewer, this.#listedFor(viewer, cached)),
      ...{ away: told.map(({ nodeKey }) => nodeKey), ...isByPolicy },
    };
  }

  #some(viewer: NodeRecord | undefined, since: string, changed: NodeRecord[]): Answer {
    const { etag } = this.#nodes;
    const peers = this.#peers(viewer, changed.filter(({ listed }) => listed));
    const left = this.#peers(viewer, changed.filter(({ listed }) => !listed));
    const gone = left.map(({ nodeKey }) => nodeKey);
    return {
      json: jsonOf({ etag, peers, changes: { since, gone } }),
      isNews: this.#policy ? peers.length + gone.length > 0 : since !== etag,
    };
  }
}

function jsonOf(list: PeerList): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(peersJson(list))) as Uint8Array<ArrayBuffer>;
}

function latest(records: NodeRecord[]): NodeRecord[] {
  const seen = ({ seenMs, updatedMs }: NodeRecord) => seenMs ?? updatedMs;
  return records.toSorted((a, b) => seen(b) - seen(a)).slice(0, MAX_AWAY);
}
