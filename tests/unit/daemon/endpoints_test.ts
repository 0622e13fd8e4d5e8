/** The list of endpoints that a node tells. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type Endpoint, formatEndpoint, parseEndpoint } from "../../../lib/addr.ts";
import { advertise } from "../../../lib/daemon/own/endpoints.ts";

const endpoints = (...texts: string[]) => texts.map(parseEndpoint);
const many = (count: number): Endpoint[] =>
  Array.from({ length: count }, (_, i) => parseEndpoint(`[2001:db8::${i + 1}]:7777`));

Deno.test("advertise() tells each endpoint once, by its first source", () => {
  const list = advertise({
    given: endpoints("198.51.100.1:4000"),
    local: endpoints("[2001:db8::1]:7777", "10.0.0.2:7777"),
    portmap: endpoints("203.0.113.1:5000"),
    stun: endpoints("203.0.113.1:5000", "203.0.113.1:7777", "[2001:db8::1]:7777"),
  });
  deepStrictEqual(list.map(({ endpoint, source }) => `${source} ${formatEndpoint(endpoint)}`), [
    "given 198.51.100.1:4000",
    "local [2001:db8::1]:7777",
    "local 10.0.0.2:7777",
    "portmap 203.0.113.1:5000",
    "stun 203.0.113.1:7777",
  ]);
});

Deno.test("advertise() leaves out local endpoints, not others, where there are too many", () => {
  const stun = endpoints("203.0.113.1:7777", "203.0.113.2:7777");
  const list = advertise({ given: [], local: many(40), portmap: [], stun });
  strictEqual(list.length, 32);
  deepStrictEqual(list.slice(-2).map(({ endpoint }) => endpoint), stun);
  strictEqual(advertise({ given: many(40), local: many(3), portmap: [], stun }).length, 32);
});
