import { strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { PendingPings, PONG_WAIT_MS } from "../../../lib/peer/pending.ts";
import type { NodeKey } from "../../../lib/keys.ts";

const peer = "aa" as NodeKey;
const other = "bb" as NodeKey;
const to = parseEndpoint("192.0.2.1:7777");
const elsewhere = parseEndpoint("192.0.2.1:7778");
const tx = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);

Deno.test("PendingPings.take() believes a pong of that peer from that address, once", () => {
  const pending = new PendingPings();
  pending.add(tx, { peer, to, sentMs: 100 });
  strictEqual(pending.take(Uint8Array.from(tx).reverse(), peer, to, 110), undefined);
  strictEqual(pending.take(tx, other, to, 110), undefined);
  strictEqual(pending.take(tx, peer, elsewhere, 110), undefined);
  strictEqual(pending.take(tx, peer, to, 120), 20);
  strictEqual(pending.take(tx, peer, to, 121), undefined);
});

Deno.test("PendingPings.take() does not believe a late pong", () => {
  const pending = new PendingPings();
  pending.add(tx, { peer, to, sentMs: 0 });
  strictEqual(pending.take(tx, peer, to, PONG_WAIT_MS + 1), undefined);
});

Deno.test("PendingPings.add() forgets pings that were never answered", () => {
  const pending = new PendingPings();
  for (let i = 0; i < 10_000; i++) {
    const id = new Uint8Array(12);
    new DataView(id.buffer).setUint32(0, i);
    pending.add(id, { peer, to, sentMs: i * 10 });
  }
  strictEqual(pending.size, PONG_WAIT_MS / 10 + 1);
});
