/** What stands in for Deno's signals and messages in `chaos` does the same. */
import { deepStrictEqual } from "node:assert/strict";
import { lightWeb } from "./world/light_web.ts";

/** What is told, in its order. */
function signals(): string[] {
  const told: string[] = [];
  const [a, b] = [new AbortController(), new AbortController()];
  const either = AbortSignal.any([a.signal, b.signal]);
  const further = AbortSignal.any([either, new AbortController().signal]);
  const listen = (name: string, signal: AbortSignal, options = {}) =>
    signal.addEventListener("abort", () => void told.push(`${name} ${signal.reason}`), options);
  listen("further", further);
  listen("either", either, { once: true });
  listen("a", a.signal);
  listen("a again", a.signal);
  a.signal.addEventListener("abort", () => void told.push(`either ${either.aborted}`));
  const removed = () => void told.push("removed");
  a.signal.addEventListener("abort", removed);
  a.signal.removeEventListener("abort", removed);
  a.abort("why");
  a.abort("again");
  b.abort("late");
  listen("too late", a.signal);
  told.push(String(AbortSignal.any([b.signal, a.signal]).reason));
  const c = new AbortController();
  c.abort();
  told.push((c.signal.reason as DOMException).name, String(c.signal.reason === c.signal.reason));
  try {
    c.signal.throwIfAborted();
  } catch (error) {
    told.push((error as Error).message);
  }
  return told;
}

async function messages(): Promise<unknown[]> {
  const request = new Request("http://host/path?query", {
    ...{ method: "POST", headers: { "X-Some": "1" }, body: "äb" },
  });
  request.headers.set("content-length", "3");
  const response = Response.json({ ok: true }, { status: 503 });
  const headers = new Headers(response.headers);
  headers.set("Date", "now");
  return [
    ...[request.url, request.method, request.headers.get("x-some"), request.headers.has("date")],
    ...[new Uint8Array(await request.arrayBuffer()), request.signal.aborted],
    ...[response.status, response.ok, response.headers.get("content-type"), headers.get("date")],
    ...[await response.json(), await new Response("text").text(), new Response().body],
  ];
}

Deno.test("light signals and messages are as Deno's", async () => {
  const expected = [signals(), await messages()];
  using _light = lightWeb();
  deepStrictEqual([signals(), await messages()], expected);
});
