/** Whose clock is off, and by how much, by answers that may come late. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { ClockOffset } from "../../../lib/coord/clock_offset.ts";

/** Both clocks: this host's may be off, and be set. */
class Clocks {
  nowMs = 0;
  offMs = 0;
  readonly offset = new ClockOffset({
    nowMs: () => this.nowMs,
    wallMs: () => 1_800_000_000_000 + this.nowMs + this.offMs,
    sleep: () => Promise.reject(new Error("nothing waits here")),
    timer: () => ({ [Symbol.dispose]: () => {} }),
  });

  /** A call that is held there for so long, and whose answer is on its way for so long. */
  call({ heldMs = 0, lateMs = 0 } = {}) {
    const sentMs = this.nowMs;
    const madeMs = 1_800_000_000_000 + sentMs + heldMs;
    this.nowMs += heldMs + lateMs;
    return this.offset.answered(madeMs, sentMs);
  }
}

Deno.test("an answer that was held, or is late, says nothing of clocks that are right", () => {
  const clocks = new Clocks();
  for (
    const times of [{}, { heldMs: 25_000 }, { lateMs: 14_000 }, { heldMs: 9_000, lateMs: 9_000 }]
  ) {
    strictEqual(clocks.call(times), undefined);
  }
  strictEqual(clocks.offset.aheadMs, 0);
});

Deno.test("a clock that is off is told, however late the answer, and by how much with a prompt one", () => {
  for (const offMs of [90_000, -90_000]) {
    const clocks = new Clocks();
    clocks.offMs = offMs;
    const late = clocks.call({ lateMs: 10_000 })!;
    strictEqual(Math.abs(late.aheadMs + offMs) <= 10_000, true);
    clocks.call();
    strictEqual(clocks.offset.aheadMs, -offMs);
    strictEqual(clocks.call({ heldMs: 25_000 }), undefined);
  }
});

Deno.test("a clock that is set while a call is held is this host's, and so is the end of that", () => {
  const clocks = new Clocks();
  clocks.call();
  clocks.offMs = 3_600_000;
  deepStrictEqual(clocks.call(), { aheadMs: -3_600_000, whose: "this host" });
  clocks.offMs = 0;
  deepStrictEqual(clocks.call({ heldMs: 20_000 }), { aheadMs: 0, whose: "this host" });
});
