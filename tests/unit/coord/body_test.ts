/** Bodies that are on their way: how many, how long, and who makes room. */
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { toHex } from "../../../lib/bytes.ts";
import {
  Bodies,
  BODY_TIMEOUT_MS,
  MAX_SLOW,
  MAX_SLOW_OF_SOURCE,
  SLOW_MS,
} from "../../../lib/coord/body.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

type Part = Uint8Array<ArrayBuffer>;

/** A body that begins, and comes on as the test says. */
function coming() {
  let controller!: ReadableStreamDefaultController<Part>;
  const body = new ReadableStream<Part>({ start: (c) => void (controller = c) });
  const reader = body.getReader();
  return {
    request: { length: 3, readBody: async () => (await reader.read()).value },
    more: (part: Part) => controller.enqueue(part),
    end: () => controller.close(),
    breakOff: () => controller.error(new TypeError("the connection is gone")),
  };
}

const tooSlow = { status: 408 };

Deno.test("a body is read in parts, and given up after 10 s", async () => {
  const clock = new VirtualClock();
  const bodies = new Bodies(clock);
  const whole = coming();
  const read = bodies.read(whole.request, "192.0.2.1");
  for (const byte of [1, 2, 3]) whole.more(Uint8Array.of(byte));
  whole.end();
  strictEqual(toHex(await read), "010203");
  const late = bodies.read(coming().request, "192.0.2.1");
  await rejects(clock.until(late), tooSlow);
  strictEqual(clock.nowMs(), BODY_TIMEOUT_MS);
  strictEqual(bodies.slow, 0);
});

Deno.test("a body that breaks off is the sender's fault", async () => {
  const bodies = new Bodies(new VirtualClock());
  const { request, more, breakOff } = coming();
  const read = bodies.read(request, "192.0.2.1");
  more(Uint8Array.of(1));
  breakOff();
  await rejects(read, { status: 400, message: "body broke off" });
});

Deno.test("bodies: who sends for longest makes room, of the same source first", async () => {
  const clock = new VirtualClock();
  const bodies = new Bodies(clock);
  const states: string[] = [];
  const begin = (source: string) => {
    const { request } = coming();
    const n = states.push("coming") - 1;
    bodies.read(request, source).then(() => states[n] = "read", (error) => {
      states[n] = String(error.status);
    });
  };
  begin("192.0.2.1");
  for (let i = 0; i <= MAX_SLOW_OF_SOURCE; i++) begin("192.0.2.2");
  await clock.until(clock.sleep(SLOW_MS));
  await new Promise((resolve) => setTimeout(resolve));
  deepStrictEqual(states.slice(0, 3), ["coming", "408", "coming"], "its own");
  for (let i = 0; i < MAX_SLOW; i++) begin(`198.51.100.${i}`);
  await clock.until(clock.sleep(SLOW_MS));
  await new Promise((resolve) => setTimeout(resolve));
  strictEqual(bodies.slow, MAX_SLOW);
  const left = states.filter((state) => state === "coming").length;
  strictEqual(left, MAX_SLOW);
  strictEqual(states.at(-1), "coming");
  strictEqual(states[0], "408");
});
