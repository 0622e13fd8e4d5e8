/** Sealed messages that wait: order, age and bounds, with time as an argument. */
import { deepStrictEqual, ok } from "node:assert/strict";
import {
  Mailbox,
  MAX_QUEUE,
  MAX_QUEUED_BYTES,
  SIGNAL_MAX_AGE_MS,
} from "../../../lib/coord/mailbox.ts";
import { type DiscoKey, discoKeyFromBytes } from "../../../lib/keys.ts";

function discoKey(n: number): DiscoKey {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return discoKeyFromBytes(key);
}

function envelope(n: number, lengthBytes = 4) {
  const sealed = new Uint8Array(lengthBytes);
  new DataView(sealed.buffer).setUint32(0, n);
  return { from: discoKey(1), sealed };
}

const numbers = (taken: { sealed: Uint8Array }[]) =>
  taken.map(({ sealed }) => new DataView(sealed.buffer).getUint32(0));

Deno.test("take() gives all messages in order, once", () => {
  const mailbox = new Mailbox();
  for (const n of [1, 2, 3]) mailbox.put(discoKey(2), envelope(n), 0);
  deepStrictEqual(numbers(mailbox.take(discoKey(2), 0)), [1, 2, 3]);
  deepStrictEqual(mailbox.take(discoKey(2), 0), []);
});

Deno.test("a queue drops its oldest message when full", () => {
  const mailbox = new Mailbox();
  for (let n = 0; n <= MAX_QUEUE; n++) mailbox.put(discoKey(2), envelope(n), 0);
  const taken = numbers(mailbox.take(discoKey(2), 0));
  deepStrictEqual([taken.length, taken[0], taken.at(-1)], [MAX_QUEUE, 1, MAX_QUEUE]);
});

Deno.test("who floods a mailbox pushes out their own messages, not others'", () => {
  const mailbox = new Mailbox();
  mailbox.put(discoKey(2), { ...envelope(1), from: discoKey(3) }, 0);
  for (let n = 10; n < 10 + 2 * MAX_QUEUE; n++) mailbox.put(discoKey(2), envelope(n), 0);
  const taken = numbers(mailbox.take(discoKey(2), 0));
  deepStrictEqual([taken.length, taken[0], taken.at(-1)], [MAX_QUEUE, 1, 9 + 2 * MAX_QUEUE]);
});

Deno.test("take() leaves out what is older than 30 s", () => {
  const mailbox = new Mailbox();
  mailbox.put(discoKey(2), envelope(1), 0);
  mailbox.put(discoKey(2), envelope(2), 1);
  deepStrictEqual(numbers(mailbox.take(discoKey(2), SIGNAL_MAX_AGE_MS + 1)), [2]);
});

Deno.test("all mailboxes together are bounded, and who fills them pushes out their own messages", () => {
  const mailbox = new Mailbox();
  const sealedLength = 2048;
  const room = Math.floor(MAX_QUEUED_BYTES / (sealedLength + 128));
  mailbox.put(discoKey(0), { ...envelope(0), from: discoKey(3) }, 0);
  const put = (n: number, nowMs = 0) =>
    mailbox.put(discoKey(1 + Math.floor(n / MAX_QUEUE)), envelope(n, sealedLength), nowMs);
  for (let n = 0; n < room + 10; n++) put(n);
  ok(mailbox.sizes.bytes <= MAX_QUEUED_BYTES);
  mailbox.put(discoKey(0), { ...envelope(1), from: discoKey(4) }, 0);
  deepStrictEqual(numbers(mailbox.take(discoKey(0), 0)), [0, 1]);
  ok(numbers(mailbox.take(discoKey(1), 0))[0]! >= 10);
  mailbox.sweep(SIGNAL_MAX_AGE_MS + 1);
  deepStrictEqual(mailbox.sizes, { messages: 0, bytes: 0, deepest: 0 });
});
