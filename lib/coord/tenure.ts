/**
 * How long a node keeps its address, and how many newcomers may hold one at a time: whoever makes up
 * identities does not use up the pool. Pure: time is an argument.
 */
import type { NodeRecord, TokenRecord } from "./api.ts";
import { Refusal } from "./refusal.ts";

/** An address whose node was silent for so long may be given to another, if none is free. */
export const ADDRESS_KEPT_MS = 30 * 24 * 3600 * 1000;
/** The same of a node that was not there any more, or again, so long after it had joined. */
export const NEWCOMER_KEPT_MS = 3600 * 1000;

/** Of a pool's addresses, those that newcomers of one source, or by one token, may hold. */
const PART_OF_SOURCE = 1 / 2;
const PART_OF_TOKEN = 3 / 4;
const AT_LEAST = 32;

/** Where a newcomer comes from, and by which token. */
export interface Origin {
  source: string;
  token?: Pick<TokenRecord, "id"> | undefined;
}

/** Whether the node has come to stay, which nobody has noted yet. */
export function hasStayed({ joinedMs, isSettled }: NodeRecord, nowMs: number): boolean {
  return joinedMs !== undefined && !isSettled && nowMs - joinedMs >= NEWCOMER_KEPT_MS;
}

/** Records of earlier versions tell nothing of it, and count as settled. */
function isNewcomer({ joinedMs, isSettled }: NodeRecord): boolean {
  return joinedMs !== undefined && !isSettled;
}

/** Who only registered and told no endpoint never was of use: the address is kept for a lease. */
export function mayLoseAddress(record: NodeRecord, nowMs: number): boolean {
  const { listed, leaseEndsMs, endpoints } = record;
  if (listed) return false;
  const usedForMs = isNewcomer(record) ? NEWCOMER_KEPT_MS : ADDRESS_KEPT_MS;
  return nowMs - leaseEndsMs >= (endpoints.length > 0 ? usedForMs : 0);
}

/** Throws {@link Refusal} where one source, or one token, has brought too many. */
export function refuseCrowd(
  records: Iterable<NodeRecord>,
  { source, token }: Origin,
  { capacity, nowMs }: { capacity: number; nowMs: number },
): void {
  const part = token ? PART_OF_TOKEN : PART_OF_SOURCE;
  let left = Math.max(AT_LEAST, Math.floor(capacity * part));
  for (const record of records) {
    if (!isNewcomer(record) || mayLoseAddress(record, nowMs)) continue;
    const isSame = token ? record.tokenId === token.id : record.source === source;
    if (isSame && --left <= 0) {
      const whose = token ? `by token ${token.id}` : "from this address";
      throw new Refusal(
        429,
        `too many new nodes ${whose} within an hour: try later, or start the coordinator with a larger --pool`,
        NEWCOMER_KEPT_MS / 60,
      );
    }
  }
}
