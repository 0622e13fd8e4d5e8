/** What a store keeps of a node, one for each number. */
import { parseIp } from "../../lib/addr.ts";
import type { NodeRecord } from "../../lib/coord/api.ts";
import { discoKeyFromBytes, nodeKeyFromBytes } from "../../lib/keys.ts";

export function nodeRecord(n: number): NodeRecord {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return {
    ...{ nodeKey: nodeKeyFromBytes(key), discoKey: discoKeyFromBytes(key), name: `n${n}` },
    ...{ tunnelIp: parseIp(`100.64.${n >> 8}.${n & 255}`), endpoints: [], listed: true },
    ...{ updatedMs: 1, leaseEndsMs: 1 },
  };
}
