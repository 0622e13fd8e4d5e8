/** STUN that is asked beside registering. */
import { deepStrictEqual } from "node:assert/strict";
import { formatEndpoint, parseEndpoint } from "../../../lib/addr.ts";
import { EarlyStun } from "../../../lib/daemon/own/early_stun.ts";
import type { StunAnswer, StunServer } from "../../../lib/stun/mod.ts";

const at = (endpoint: string): StunServer => ({
  name: endpoint,
  endpoint: parseEndpoint(endpoint),
});
const [A, B, A6] = ["192.0.2.1:3478", "192.0.2.2:3478", "[2001:db8::1]:3478"].map(at) as [
  StunServer,
  StunServer,
  StunServer,
];
const MAPPED = parseEndpoint("203.0.113.4:7777");
const OPTIONS = { timeoutMs: 3000 };

/** Of real queries: whom they ask; answered where the first server has an answer. */
function bench(...silent: StunServer[]) {
  const asked: string[] = [];
  const early = new EarlyStun({
    query: async (servers) => {
      asked.push(servers.map(({ endpoint }) => formatEndpoint(endpoint)).join());
      const [server] = servers;
      const answer: StunAnswer = { server: server!, mapped: MAPPED, rttMs: 20 };
      return silent.includes(server!) ? [] : [answer];
    },
  });
  return { asked, early };
}

Deno.test("an early answer is taken once, by the query that asks its server", async () => {
  const { asked, early } = bench();
  early.ask([A, A6], [4, 6]);
  deepStrictEqual(asked, ["192.0.2.1:3478", "[2001:db8::1]:3478"]);
  deepStrictEqual((await early.query([B], OPTIONS)).map(({ server }) => server), [B]);
  deepStrictEqual((await early.query([B, A], OPTIONS)).map(({ server }) => server), [A]);
  deepStrictEqual(asked.slice(2), ["192.0.2.2:3478"]);
  await early.query([A], OPTIONS);
  deepStrictEqual(asked.slice(3), ["192.0.2.1:3478"]);
});

Deno.test("where nobody answered early, or long ago, STUN is asked as ever", async () => {
  const { asked, early } = bench(A);
  early.ask([A], [4]);
  deepStrictEqual(await early.query([A, B], OPTIONS), []);
  deepStrictEqual(asked, ["192.0.2.1:3478", "192.0.2.1:3478,192.0.2.2:3478"]);
  early.ask([B], [4]);
  early.forget();
  await early.query([B], OPTIONS);
  deepStrictEqual(asked.slice(2), ["192.0.2.2:3478", "192.0.2.2:3478"]);
});
