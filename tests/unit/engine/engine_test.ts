import { strictEqual, throws } from "node:assert/strict";
import { freeNumber } from "../../../lib/engine/engine.ts";
import { MAX_LINKS } from "../../../lib/engine/messages.ts";

Deno.test("numbers of links are used again, and one link too many is refused", () => {
  const links: unknown[] = [{}, undefined, {}];
  strictEqual(freeNumber(links), 1);
  links[1] = {};
  strictEqual(freeNumber(links), 3);
  throws(() => freeNumber(new Array(MAX_LINKS).fill({})), {
    name: "GretunError",
    message: "the user-space data plane carries 4096 links and no more",
  });
});
