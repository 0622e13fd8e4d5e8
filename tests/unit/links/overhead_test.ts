/** The bytes that a tunnel adds, by the formats of its headers. */
import { strictEqual } from "node:assert/strict";
import { TUNNEL_KINDS, type TunnelKind } from "../../../lib/netlink.ts";
import { overheadBytes, type OverheadOptions } from "../../../lib/links/mod.ts";

const CASES: [OverheadOptions, number][] = [
  [{ kind: "gre" }, 24],
  [{ kind: "gre", key: true }, 28],
  [{ kind: "gre", key: true, csum: true, seq: true }, 36],
  [{ kind: "gre", encap: "fou" }, 32],
  [{ kind: "gre", encap: "fou", key: true }, 36],
  [{ kind: "gre", encap: "gue" }, 36],
  [{ kind: "gre", encap: "gue", key: true }, 40],
  [{ kind: "gretap" }, 38],
  [{ kind: "gretap", encap: "fou", key: true }, 50],
  [{ kind: "ipip" }, 20],
  [{ kind: "ipip", encap: "fou" }, 28],
  [{ kind: "sit" }, 20],
  [{ kind: "sit", encap: "gue" }, 32],
  [{ kind: "ip6gre" }, 44],
  [{ kind: "ip6gre", encap: "fou", key: true }, 56],
  [{ kind: "ip6gretap" }, 58],
  [{ kind: "ip6gretap", encap: "gue" }, 70],
  [{ kind: "ip6tnl" }, 40],
  [{ kind: "ip6tnl", encapLimit: true }, 48],
  [{ kind: "ip6tnl", encap: "gue" }, 52],
];

Deno.test("overheadBytes() is what the headers take", () => {
  for (const [options, bytes] of CASES) {
    strictEqual(overheadBytes(options), bytes, JSON.stringify(options));
  }
});

/** Header by header, the slow way. */
function sumOfHeaders({ kind, encap, key, csum, seq }: OverheadOptions): number {
  let sum = kind.startsWith("ip6") ? 40 : 20;
  if (encap) sum += 8;
  if (encap === "gue") sum += 4;
  if (kind.includes("gre")) {
    sum += 4;
    for (const option of [key, csum, seq]) if (option) sum += 4;
  }
  if (["gretap", "ip6gretap"].includes(kind)) sum += 14;
  return sum;
}

Deno.test("overheadBytes() of every kind, encapsulation and option", () => {
  let count = 0;
  for (const kind of TUNNEL_KINDS) {
    for (const encap of [undefined, "fou", "gue"] as const) {
      for (let bits = 0; bits < 8; bits++) {
        const [key, csum, seq] = [1, 2, 4].map((bit) => (bits & bit) !== 0);
        const options = {
          ...{ kind: kind as TunnelKind, key: key!, csum: csum!, seq: seq! },
          ...(encap ? { encap } : {}),
        };
        strictEqual(overheadBytes(options), sumOfHeaders(options), JSON.stringify(options));
        count++;
      }
    }
  }
  strictEqual(count, 7 * 3 * 8);
});
