/** Results that must be written, and messages that need not be. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { systemClock } from "../../../lib/edges.ts";
import { GretunError } from "../../../lib/errors.ts";
import { messageWriter, OutputClosedError, resultWriter } from "../../../lib/cli/output.ts";

const clock = { ...systemClock, wallMs: () => 0 };

/** A stream that takes so many bytes more, then fails; and may not take any without waiting. */
class FakeStream {
  room = Infinity;
  isReady = true;
  /** At once. */
  chunk = Infinity;
  text = "";
  readonly waitedMs: number[] = [];
  readonly #error: Error;

  constructor(error: Error = new Error("No space left on device (os error 28)")) {
    this.#error = error;
  }

  writeSync(bytes: Uint8Array): number {
    const length = Math.min(bytes.length, this.room, this.chunk);
    if (length === 0) throw this.#error;
    this.text += new TextDecoder().decode(bytes.subarray(0, length));
    this.room -= length;
    return length;
  }

  canWrite(timeoutMs: number): boolean {
    this.waitedMs.push(timeoutMs);
    return this.isReady;
  }
}

Deno.test("results are written whole, in as many parts as it takes", () => {
  const stream = new FakeStream();
  stream.chunk = 3;
  resultWriter(stream)("0123456789ä\n");
  strictEqual(stream.text.length > 0, true);
  ok(stream.text.startsWith("0123456789"));
});

Deno.test("a result that cannot be written is an error for the user, a closed pipe none", () => {
  const full = new FakeStream();
  full.room = 2;
  throws(() => resultWriter(full)("four"), (error) => {
    ok(error instanceof GretunError);
    strictEqual(error.message, "cannot write the output: No space left on device");
    return true;
  });
  const closed = new FakeStream(new Deno.errors.BrokenPipe());
  closed.room = 0;
  throws(() => resultWriter(closed)("four"), OutputClosedError);
});

const LOST = (count: number) =>
  `time=1970-01-01T00:00:00.000Z level=warn ` +
  `msg="messages lost: they could not be written" count=${count}\n`;

Deno.test("messages that cannot be written are counted, and told when there is room again", () => {
  const stream = new FakeStream();
  const write = messageWriter(stream, clock);
  write("one\n");
  stream.room = 0;
  for (const text of ["two\n", "three\n"]) write(text);
  stream.room = Infinity;
  write("four\n");
  write("five\n");
  strictEqual(stream.text, `one\n${LOST(2)}four\nfive\n`);
});

Deno.test("a message that was cut does not run into the next one", () => {
  const stream = new FakeStream();
  const write = messageWriter(stream, clock);
  stream.room = 2;
  write("one\n");
  stream.room = Infinity;
  write("two\n");
  strictEqual(stream.text, `on\n${LOST(1)}two\n`);
});

Deno.test("a reader that does not read is waited for once, and for a moment", () => {
  const stream = new FakeStream();
  const write = messageWriter(stream, clock);
  stream.isReady = false;
  for (let i = 0; i < 3; i++) write("lost\n");
  ok(stream.waitedMs[0]! > 0);
  deepStrictEqual(stream.waitedMs.slice(1), [0, 0]);
  stream.isReady = true;
  write("heard\n");
  strictEqual(stream.text, `${LOST(3)}heard\n`);
});
