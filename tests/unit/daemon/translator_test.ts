/** IPv4 addresses on a host with IPv6 alone. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type Ip, parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { Translator } from "../../../lib/daemon/own/translator.ts";

const PEER = parseEndpoint("198.51.100.7:7777");

/** What the network is like, which may change. */
function world() {
  const at = { hasIpv4: false, prefix: "64:ff9b::" as string | undefined, asked: 0, changes: 0 };
  const lookup = (hostname: string): Promise<Ip[]> => {
    at.asked++;
    if (hostname !== "ipv4only.arpa") return Promise.resolve([parseIp("198.51.100.1")]);
    if (!at.prefix) return Promise.reject(new Error("there is no such name"));
    return Promise.resolve([parseIp("192.0.0.170"), parseIp(`${at.prefix}192.0.0.170`)]);
  };
  const rtnl = { tryRouteTo: () => at.hasIpv4 ? {} as never : undefined };
  const translator = new Translator({ rtnl, lookup, onChange: () => at.changes++ });
  return Object.assign(at, { translator });
}

Deno.test("a host with IPv4 asks for no translator, and sends where it is told", async () => {
  const at = world();
  at.hasIpv4 = true;
  await at.translator.changed();
  deepStrictEqual([at.translator.reach(PEER), at.asked, at.changes], [PEER, 0, 0]);
  deepStrictEqual(await at.translator.lookup("coord.example"), ["198.51.100.1"]);
});

Deno.test("without IPv4, peers and servers are reached by the translator, for as long as it is there", async () => {
  const at = world();
  const { translator } = at;
  await translator.changed();
  await translator.changed();
  deepStrictEqual(translator.reach(PEER), parseEndpoint("[64:ff9b::c633:6407]:7777"));
  const both = ["198.51.100.1", "64:ff9b::c633:6401"];
  deepStrictEqual(await translator.lookup("coord.example"), both);
  strictEqual(at.changes, 1);
  at.prefix = "2001:db8:64::";
  await translator.changed();
  deepStrictEqual(translator.reach(PEER), parseEndpoint("[2001:db8:64::c633:6407]:7777"));
  at.prefix = undefined;
  await translator.changed();
  deepStrictEqual([translator.reach(PEER), at.changes], [PEER, 3]);
  deepStrictEqual(await translator.lookup("coord.example"), ["198.51.100.1"]);
});
