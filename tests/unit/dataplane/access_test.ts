/** What far ends may open here, as either plane tells the kernel. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { toHex, Writer } from "../../../lib/bytes.ts";
import { elementsOf } from "../../../lib/dataplane/guard/access.ts";
import {
  GreCodec,
  openPlane,
  type PlaneOptions,
  type WantedLink,
} from "../../../lib/dataplane/mod.ts";
import { silentLog } from "../../../lib/edges.ts";
import { GretunError } from "../../../lib/errors.ts";
import { type Access, EVERYTHING, parseAccess, union } from "../../../lib/policy/access.ts";
import { FakeHost } from "../../fakes/host.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const TABLE = "inet gretun-up-7777-access";
const access = (...words: string[]): Access => union(...words.map(parseAccess));
const ifindexOf = (host: FakeHost, name: string) => {
  using rtnl = host.openRtNetlink();
  return toHex(new Writer("host", 4).u32(rtnl.link(name)!.ifindex).finish());
};

for (
  const [words, expected] of [
    [["any"], {}],
    [[], { closed: [""] }],
    [["tcp:443"], { closed: [""], ports_16: ["06000000 01bb0000"] }],
    [["udp"], { closed: [""], ports_0: ["11000000 00000000"] }],
    [["icmp"], { closed: [""], protocols: ["01000000", "3a000000"] }],
    [["tcp:1000-1010"], {
      closed: [""],
      ports_13: ["06000000 03e80000"],
      ports_15: ["06000000 03f00000"],
      ports_16: ["06000000 03f20000"],
    }],
    [["tcp:65534-65535", "udp:1"], {
      closed: [""],
      ports_15: ["06000000 fffe0000"],
      ports_16: ["11000000 00010000"],
    }],
  ] as [string[], Record<string, string[]>][]
) {
  Deno.test(`elementsOf() has ${words.join(" ") || "nothing"} in as few blocks as there are`, () => {
    const link = toHex(new Writer("host", 4).u32(7).finish());
    const found = Object.entries(elementsOf(7, access(...words))).map(([set, elements]) =>
      [set, elements.map(({ key }) => toHex(key))] as const
    );
    const wanted = Object.entries(expected).map(([set, keys]) =>
      [set, keys.map((key) => link + key.replace(" ", ""))] as const
    );
    deepStrictEqual(Object.fromEntries(found), Object.fromEntries(wanted));
  });
}

const link = (id = "a", port = 1): WantedLink => ({
  id,
  remote: parseEndpoint(`198.51.100.1:${port}`),
  addresses: [],
  routes: [],
  keys: { kind: "gre", ikey: 2 * port, okey: 2 * port + 1 },
});

function open(host: FakeHost, kind: "fou" | "tun", change: Partial<PlaneOptions> = {}) {
  return openPlane({ wanted: kind, codec: () => new GreCodec() }, {
    ...{ role: "up", port: 7777, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
    ...{ encapCsum: "off", signalling: { kind: "patterns", any: [] } },
    onDatagram: () => {},
    onFault: (_what, error) => {
      throw error;
    },
    ...change,
  }, { host, clock: new VirtualClock(), log: silentLog });
}

for (const kind of ["fou", "tun"] as const) {
  const closed = (host: FakeHost) => host.nft.elements(TABLE, "closed");

  Deno.test(`${kind}: a link is closed before it is up, opened and closed in place, and gone`, async () => {
    const host = new FakeHost();
    {
      await using plane = open(host, kind);
      plane.setLink(link("other", 9));
      strictEqual(host.nft.tables.has(TABLE), false);
      plane.allow("a", access("tcp:443"));
      plane.setLink(link());
      const own = ifindexOf(host, "gretun1");
      deepStrictEqual(closed(host), [own]);
      plane.allow("a", access("udp:53", "icmp"));
      deepStrictEqual(host.nft.elements(TABLE, "ports_16"), [`${own}1100000000350000`]);
      host.nft.flush();
      deepStrictEqual(closed(host), [own]);
      plane.setLink(link("a", 3));
      deepStrictEqual(closed(host), [own]);
      plane.allow("a", EVERYTHING);
      deepStrictEqual(closed(host), []);
      plane.allow("a", access());
      plane.removeLink("a");
      deepStrictEqual(closed(host), []);
      plane.setLink(link());
      deepStrictEqual(closed(host), [ifindexOf(host, "gretun1")]);
    }
    strictEqual(host.nft.tables.size, 0);
  });

  Deno.test(`${kind}: where the kernel has no rules, only what is open to all gets a link`, async () => {
    const host = new FakeHost();
    await using plane = open(host, kind, { onFault: () => {} });
    host.nft.isThere = false;
    plane.allow("a", EVERYTHING);
    plane.setLink(link());
    throws(() => plane.allow("a", access("tcp:443")), GretunError);
    plane.removeLink("a");
    throws(() => plane.setLink(link()), GretunError);
    using rtnl = host.openRtNetlink();
    ok(!rtnl.link("gretun0"));
    host.nft.isThere = true;
    plane.setLink(link());
    deepStrictEqual(closed(host), [ifindexOf(host, "gretun0")]);
  });
}

Deno.test("kernel plane: rules stay with the links, until a run without a policy has them", async () => {
  const host = new FakeHost();
  {
    await using plane = open(host, "fou", { keepsLinks: () => true });
    plane.allow("a", access("tcp:443"));
    plane.setLink(link());
  }
  strictEqual(host.nft.elements(TABLE, "closed").length, 1);
  await using plane = open(host, "fou");
  strictEqual(host.nft.elements(TABLE, "closed").length, 1);
  plane.allow("a", undefined);
  strictEqual(host.nft.tables.has(TABLE), false);
});
