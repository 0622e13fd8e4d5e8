/**
 * Which of the coordinator's words about peers this node believes. Keys, endpoints and the like of a peer
 * count as the peer has signed them, never older ones after newer ones; its address has to be the
 * overlay's; and a name or an address that belonged to one key does not pass to another without the user.
 */
import { type Cidr, cidrContains, formatCidr, type Ip } from "../addr.ts";
import { asStated, asTold, type PeerRecord, readStatement, type Statement } from "../coord/api.ts";
import type { Clock, Log } from "../edges.ts";
import { keyBase64, type NodeKey, shortKey } from "../keys.ts";
import type { Known, KnownPeer } from "./known.ts";
import type { Finding } from "./peer_report.ts";
import { peerFields } from "./words.ts";

/** A peer that was not listed for so long is forgotten, as its address is. */
const FORGET_AFTER_MS = 30 * 24 * 3600 * 1000;
/** When peers were seen is written no more often than that. */
const SEEN_EVERY_MS = 24 * 3600 * 1000;

const NOT_ITS_WORD = "Ask the coordinator's operator: somebody may speak in the peer's place";

export interface TrustOptions {
  known: Pick<Known, "peers" | "changed">;
  /** This node's address and the overlay's prefix length. */
  tunnelIp: () => Cidr;
  /** Whether names and addresses pass to other keys without being asked for. */
  acceptsChanges: boolean;
  clock: Clock;
  log: Log;
}

interface Refused extends Finding {
  record: PeerRecord;
  /** Who had its name or address. */
  before: NodeKey[];
}

type Read = { text: string; statement: Statement | undefined };

export class Trust {
  readonly #options: TrustOptions;
  /** What each peer that is listed has signed last, so that it is checked once. */
  #read = new Map<NodeKey, Read>();
  /** The last of each that is listed. */
  #believed = new Map<NodeKey, PeerRecord>();
  #refused = new Map<NodeKey, Refused>();

  constructor(options: TrustOptions) {
    this.#options = options;
  }

  get findings(): Finding[] {
    return [...this.#refused.values()].map(({ text, remedy }) => ({ text, remedy }));
  }

  /** The records of the whole list that are believed, with what the peers themselves say. */
  async judge(records: readonly PeerRecord[]): Promise<PeerRecord[]> {
    const read = await Promise.all(records.map((record) => this.#readOf(record)));
    const statements = new Map(records.map(({ nodeKey }, i) => [nodeKey, read[i]!]));
    const before = { believed: this.#believed, refused: this.#refused };
    this.#read = new Map([...statements].flatMap(([key, read]) => read ? [[key, read]] : []));
    [this.#believed, this.#refused] = [new Map(), new Map()];
    this.#forgetOld();
    const { peers } = this.#options.known;
    // Who is known comes first, and may have left its address to another.
    for (
      const record of records.toSorted((a, b) => +peers.has(b.nodeKey) - +peers.has(a.nodeKey))
    ) {
      const { nodeKey } = record;
      const statement = statements.get(nodeKey)?.statement;
      const refused = this.#whyNot(record, statement, statements);
      if (refused) {
        this.#refuse(refused, before.refused.get(nodeKey));
        const last = before.believed.get(nodeKey);
        if (last && this.#isInside(last.tunnelIp)) {
          this.#believed.set(nodeKey, asTold(last, record));
        }
      } else {
        this.#remember(record, statement);
        this.#believed.set(nodeKey, statement ? asStated(record, statement) : record);
      }
    }
    return [...this.#believed.values()];
  }

  /** The user says that the refused peer of that name, address or key is who it says. Whether there is one. */
  accept(named: string): boolean {
    const meant = [...this.#refused.values()].filter((
      { record: { name, tunnelIp, nodeKey }, before },
    ) =>
      before.length > 0 && (named === name || named === tunnelIp ||
        (named.length >= 6 && (nodeKey.startsWith(named) || keyBase64(nodeKey).startsWith(named))))
    );
    for (const { before } of meant) this.#forget(before);
    return meant.length > 0;
  }

  async #readOf({ nodeKey, statement: signed }: PeerRecord): Promise<Read | undefined> {
    if (!signed) return undefined;
    const read = this.#read.get(nodeKey);
    if (read?.text === signed.text && read.statement) return read;
    const statement = await readStatement(signed, nodeKey).catch(() => undefined);
    return { text: signed.text, statement };
  }

  #isInside(ip: Ip): boolean {
    const own = this.#options.tunnelIp();
    return cidrContains(own, ip) && ip !== own.ip;
  }

  #whyNot(
    record: PeerRecord,
    statement: Statement | undefined,
    listed: { has(key: NodeKey): boolean },
  ): Refused | undefined {
    const { name, nodeKey, tunnelIp } = record;
    const known = this.#options.known.peers.get(nodeKey);
    const because = (text: string): Refused => ({ text, remedy: NOT_ITS_WORD, record, before: [] });
    if (!this.#isInside(tunnelIp)) {
      const own = this.#options.tunnelIp();
      const where = tunnelIp === own.ip
        ? "this host's own address"
        : `outside of ${formatCidr(own)}`;
      return because(`${name} is listed at ${tunnelIp}, ${where}`);
    }
    if (!statement) {
      if (record.statement) return because(`what is told of ${name} is not signed with its key`);
      if (known?.sequence === undefined) return this.#whyOther(record, known, listed);
      return because(`${name} has signed what it told, and what is told of it now is not signed`);
    }
    if (known?.sequence !== undefined && statement.sequence < known.sequence) {
      return because(`what is told of ${name} is older than what it told last`);
    }
    return this.#whyOther(record, known, listed);
  }

  /** Its name or address was another's. */
  #whyOther(
    record: PeerRecord,
    known: KnownPeer | undefined,
    listed: { has(key: NodeKey): boolean },
  ): Refused | undefined {
    const { name, nodeKey, tunnelIp } = record;
    const before = [...this.#options.known.peers].filter(([key, peer]) =>
      key !== nodeKey && (peer.ip === tunnelIp ||
        // Hosts may well have one name, if they are there at one time.
        (!known && name !== "" && peer.name === name && !listed.has(key)))
    ).map(([key]) => key);
    if (before.length === 0) return undefined;
    const text = `${name} at ${tunnelIp} has key ${shortKey(nodeKey)}, and before it was ` +
      before.map((key) => `${this.#options.known.peers.get(key)!.name} with ${shortKey(key)}`).join(
        ", ",
      );
    if (this.#options.acceptsChanges) {
      this.#options.log.warn("peer has another key", { ...peerFields(record), error: text });
      this.#forget(before);
      return undefined;
    }
    const remedy = `If that is so, as after a new set-up: gretun peers --accept ${
      shortKey(nodeKey)
    }`;
    return { text, remedy, record, before };
  }

  #refuse(refused: Refused, before: Refused | undefined): void {
    this.#refused.set(refused.record.nodeKey, refused);
    if (before?.text === refused.text) return;
    const { text, remedy, record } = refused;
    this.#options.log.warn("peer refused", { ...peerFields(record), error: text, hint: remedy });
  }

  #remember({ nodeKey, name, tunnelIp }: PeerRecord, statement: Statement | undefined): void {
    const { known, clock } = this.#options;
    const { peers } = known;
    const before = peers.get(nodeKey);
    const seenMs = clock.wallMs();
    // Where it says so itself, as long as it does.
    const ip = statement ? statement.tunnelIp ?? before?.ip ?? tunnelIp : tunnelIp;
    const { sequence } = statement ?? {};
    const isSame = before?.name === name && before.ip === ip && before.sequence === sequence &&
      Math.abs(seenMs - before.seenMs) < SEEN_EVERY_MS;
    if (isSame) return;
    peers.set(nodeKey, { name, ip, ...(sequence === undefined ? {} : { sequence }), seenMs });
    known.changed();
  }

  #forgetOld(): void {
    const { known: { peers }, clock } = this.#options;
    const nowMs = clock.wallMs();
    const old = [...peers].filter(([key, { seenMs }]) =>
      nowMs - seenMs > FORGET_AFTER_MS && !this.#read.has(key)
    );
    if (old.length > 0) this.#forget(old.map(([key]) => key));
  }

  #forget(keys: readonly NodeKey[]): void {
    for (const key of keys) this.#options.known.peers.delete(key);
    this.#options.known.changed();
  }
}
