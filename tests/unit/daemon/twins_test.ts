/** When a node's own record shows that another host runs with its key. */
import { strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import type { AdvertisedEndpoint } from "../../../lib/coord/api.ts";
import { TwinWatch } from "../../../lib/daemon/twins.ts";

const list = (...texts: string[]): AdvertisedEndpoint[] =>
  texts.map((text) => ({ endpoint: parseEndpoint(text), source: "stun" }));
const OWN = list("203.0.113.1:7777");
const OTHERS = list("203.0.113.9:7777");

Deno.test("TwinWatch knows what this node has told, late and in another order", () => {
  const watch = new TwinWatch();
  strictEqual(watch.isTwin({ endpoints: OTHERS }), false, "of an earlier run");
  watch.tells(OWN);
  watch.tells([...OWN, ...list("10.0.0.1:7777")]);
  strictEqual(watch.isTwin({ endpoints: [] }), false);
  strictEqual(watch.isTwin({ endpoints: OWN }), false);
  const turned = [...list("10.0.0.1:7777"), ...OWN];
  strictEqual(watch.isTwin({ endpoints: turned }), false);
});

Deno.test("TwinWatch sees another host by its endpoints", () => {
  const watch = new TwinWatch();
  watch.tells(OWN);
  strictEqual(watch.isTwin({ endpoints: OWN }), false);
  strictEqual(watch.isTwin({ endpoints: OTHERS }), true);
});
