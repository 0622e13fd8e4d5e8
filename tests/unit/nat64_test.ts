/** Addresses of translators: the examples of RFC 6052, and what name servers say. */
import { strictEqual } from "node:assert/strict";
import { type Ip, parseIp } from "../../lib/addr.ts";
import { askTranslation, translation } from "../../lib/nat64.ts";

/** RFC 6052 section 2.4, of 192.0.2.33; with what ipv4only.arpa has there. */
const EXAMPLES: [prefix: string, known: string, translated: string][] = [
  ["2001:db8::/32", "2001:db8:c000:aa::", "2001:db8:c000:221::"],
  ["2001:db8:100::/40", "2001:db8:1c0:0:aa::", "2001:db8:1c0:2:21::"],
  ["2001:db8:122::/48", "2001:db8:122:c000:0:aa00::", "2001:db8:122:c000:2:2100::"],
  ["2001:db8:122:300::/56", "2001:db8:122:3c0:0:aa::", "2001:db8:122:3c0:0:221::"],
  ["2001:db8:122:344::/64", "2001:db8:122:344:c0:0:aa00::", "2001:db8:122:344:c0:2:2100::"],
  ["2001:db8:122:344::/96", "2001:db8:122:344::192.0.0.170", "2001:db8:122:344::192.0.2.33"],
  ["64:ff9b::/96", "64:ff9b::192.0.0.171", "64:ff9b::192.0.2.33"],
];

for (const [prefix, known, translated] of EXAMPLES) {
  Deno.test(`translation() under ${prefix}`, () => {
    const translate = translation([parseIp("192.0.0.170"), parseIp(known)])!;
    strictEqual(translate(parseIp("192.0.2.33")), parseIp(translated));
    strictEqual(translate(parseIp("2001:db8::7")), "2001:db8::7");
  });
}

Deno.test("askTranslation() where nobody translates, or no name server answers", async () => {
  strictEqual(await askTranslation(() => Promise.resolve([parseIp("192.0.0.170")])), undefined);
  strictEqual(await askTranslation(() => Promise.resolve([parseIp("2001:db8::1")])), undefined);
  const failing = (): Promise<Ip[]> => Promise.reject(new Error("no DNS server answers"));
  strictEqual(await askTranslation(failing), undefined);
});
