/** The mark by which links are known after a crash, also after one of an earlier version. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  createMarkOf,
  daemonMarkOf,
  formatMark,
  linksOf,
  type Mark,
  markOf,
} from "../../../lib/links/mod.ts";
import type { Link } from "../../../lib/netlink.ts";

const PEER = "ab".repeat(32);

/** As versions before this room wrote them: links must be adopted after an update. */
const ALIASES: [string, Mark][] = [
  ["gretun create fou-port 1 opened", { by: "create", port: 1, opened: true }],
  ["gretun create fou-port 65535 shared", { by: "create", port: 65535, opened: false }],
  [`gretun up port 7777 peer ${PEER}`, { by: "up", port: 7777, id: PEER }],
  [
    `gretun up port 7777 peer ${PEER} from port 40123`,
    { by: "up", port: 7777, id: PEER, extraPort: 40123 },
  ],
  ["gretun hub port 7788 client büro 7", { by: "hub", port: 7788, id: "büro 7" }],
  ["gretun spoke port 7789 hub hub", { by: "spoke", port: 7789, id: "hub" }],
];

Deno.test("marks are the aliases of earlier versions, both ways", () => {
  for (const [alias, mark] of ALIASES) {
    deepStrictEqual(markOf({ alias }), mark, alias);
    strictEqual(formatMark(mark), alias);
  }
});

Deno.test("what others write in an alias is no mark", () => {
  const aliases = [
    ...["", "uplink", "gretun", "gretun up", `gretun tunnel ${PEER}`],
    ...["", " x opened", " 7777", " 7777 opened twice"].map((end) =>
      `gretun create fou-port${end}`
    ),
    ...["", `${PEER}0`, PEER.slice(1)].map((peer) => `gretun up port 7777 peer ${peer}`),
    ...[
      "gretun up port 7777 client x",
      "gretun hub port 7788 client ",
      "gretun hub port x client y",
    ],
    ` gretun up port 7777 peer ${PEER}`,
  ];
  for (const alias of aliases) strictEqual(markOf({ alias }), undefined, alias);
  strictEqual(markOf({}), undefined);
});

Deno.test("a mark of keys of a session is one that earlier versions take for theirs", () => {
  const session = "0123abcd".repeat(8);
  const mark = { by: "up" as const, port: 7777, id: PEER };
  for (const extra of [{}, { extraPort: 40123 }]) {
    const alias = formatMark({ ...mark, ...extra, session });
    deepStrictEqual(markOf({ alias }), { ...mark, ...extra, session });
    // They look for the key before "from port", and mind nothing that is no number behind it.
    ok(/^gretun up port 7777 peer [0-9a-f]{64} from port \d+ session /.test(alias), alias);
  }
});

Deno.test("an extra port that is none is left out", () => {
  for (const extra of ["", "0", "65536", "x", "1.5"]) {
    const alias = `gretun up port 7777 peer ${PEER} from port ${extra}`;
    deepStrictEqual(markOf({ alias }), { by: "up", port: 7777, id: PEER }, alias);
  }
});

Deno.test("linksOf() gives those of one daemon", () => {
  const links = ALIASES.map(([alias], ifindex) => ({ alias, ifindex }) as Link);
  const found = (role: "up" | "hub" | "spoke", port: number) =>
    linksOf(links, { role, port }).map(({ link }) => link.ifindex);
  deepStrictEqual(found("up", 7777), [2, 3]);
  deepStrictEqual(found("hub", 7788), [4]);
  deepStrictEqual([found("up", 777), found("hub", 7777), found("spoke", 1)], [[], [], []]);
});

Deno.test("daemonMarkOf() and createMarkOf() divide the marks", () => {
  for (const [alias, mark] of ALIASES) {
    const isCreated = mark.by === "create";
    strictEqual(createMarkOf({ alias }) !== undefined, isCreated, alias);
    strictEqual(daemonMarkOf({ alias }) !== undefined, !isCreated, alias);
  }
});
