/** What the coordinator counts, by Prometheus' text. */
import { match, ok } from "node:assert/strict";
import { CoordMetrics } from "../../../lib/coord/metrics.ts";
import { FakeCoordinator, fakeNode, registration, unsigned } from "../../fakes/coordinator.ts";

Deno.test("requests are counted by route, method and status, unknown ones together", async () => {
  const metrics = new CoordMetrics();
  const coord = new FakeCoordinator({ metrics });
  const [a, b] = await Promise.all([fakeNode("a"), fakeNode("b")]);
  for (const node of [a, b]) {
    await coord.call(node, "POST", "/v1/register", { body: registration(node) });
  }
  await coord.call(a, "POST", "/v1/signal", { body: {} });
  for (const path of ["/x", "/y", "/healthz"]) await coord.handle(unsigned("GET", path));
  await coord.handle(unsigned("PUT", "/healthz"));
  const text = await metrics.text();
  const count = (route: string, method: string, status: number, n: number) =>
    match(
      text,
      new RegExp(
        `^gretun_coord_requests_total{route="${route}",method="${method}",status="${status}"} ${n}$`,
        "m",
      ),
    );
  count("/v1/register", "POST", 200, 2);
  count("/v1/signal", "POST", 400, 1);
  count("other", "other", 404, 2);
  count("/healthz", "GET", 200, 1);
  count("/healthz", "other", 405, 1);
  match(text, /^gretun_coord_nodes\{state="listed"\} 2$/m);
  match(text, /^gretun_coord_store_save_duration_seconds_count [1-9]/m);
  match(text, /^gretun_coord_refused_connections_total\{reason="full"\} 0$/m);
});

Deno.test("mailboxes and held calls are counted, and a store that cannot be written", async () => {
  const metrics = new CoordMetrics();
  const coord = new FakeCoordinator({ metrics });
  const [a, b] = await Promise.all([fakeNode("a"), fakeNode("b")]);
  await coord.register(a);
  await coord.register(b);
  const body = { to: [...new Uint8Array(32)], sealed: btoa("x".repeat(100)) };
  const to = registration(b).disco_pubkey;
  for (let i = 0; i < 3; i++) {
    await coord.call(a, "POST", "/v1/signal", { body: { ...body, to } });
  }
  const hangUp = new AbortController();
  const held = coord.call(a, "GET", "/v1/signal", { signal: hangUp.signal });
  ok(await coord.isHeld(held));
  const text = await metrics.text();
  match(text, /^gretun_coord_mailbox_messages 3$/m);
  match(text, /^gretun_coord_mailbox_depth_max 3$/m);
  match(text, /^gretun_coord_held_calls 1$/m);
  hangUp.abort();
  await held;
  coord.store.save = () => {
    throw new Error("disk full");
  };
  const node = await fakeNode("c");
  ok((await coord.register(node)).status === 503);
  match(await metrics.text(), /^gretun_coord_store_save_errors_total 1$/m);
});
