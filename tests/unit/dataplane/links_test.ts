/** The mark by which links are known after a crash. */
import { deepStrictEqual } from "node:assert/strict";
import { ownerAlias, ownerOf } from "../../../lib/dataplane/links.ts";
import type { NodeKey } from "../../../lib/keys.ts";
import type { Link } from "../../../lib/netlink.ts";

const PEER = "ab".repeat(32) as NodeKey;
const link = (alias: string) => ({ alias } as Link);

Deno.test("ownerOf() reads what ownerAlias() writes, of the same port only", () => {
  deepStrictEqual(ownerOf(link(ownerAlias(7777, PEER)), 7777), { peer: PEER });
  const extra = ownerAlias(7777, PEER, 40123);
  deepStrictEqual(ownerOf(link(extra), 7777), { peer: PEER, extraPort: 40123 });
  for (const port of [777, 77777, 7778]) deepStrictEqual(ownerOf(link(extra), port), undefined);
});

Deno.test("ownerOf() takes no other alias for one of ours", () => {
  const aliases = [
    "",
    "gretun up port 7777 peer ",
    `gretun up port 7777 peer ${PEER}0`,
    `gretun up port 7777 peer ${PEER.slice(1)}`,
    `gretun tunnel ${PEER}`,
  ];
  for (const alias of aliases) deepStrictEqual(ownerOf(link(alias), 7777), undefined, alias);
  for (const extra of ["", "0", "65536", "x", "1.5"]) {
    const alias = `${ownerAlias(7777, PEER)} from port ${extra}`;
    deepStrictEqual(ownerOf(link(alias), 7777), { peer: PEER }, alias);
  }
});
