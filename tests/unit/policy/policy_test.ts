/** What a policy means, and how its file is read. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import {
  contains,
  EVERYTHING,
  formatAccess,
  overlaps,
  parseAccess,
  union,
} from "../../../lib/policy/access.ts";
import { parsePolicy, PolicyError, readPolicy, wordsOf } from "../../../lib/policy/mod.ts";
import { keyBase64, nodeKeyFromBytes } from "../../../lib/keys.ts";

const KEY = nodeKeyFromBytes(new Uint8Array(32).fill(7));

const words = (text: string) => union(...text.split(" ").map(parseAccess));

for (
  const [given, expected] of [
    ["any", "any"],
    ["tcp udp icmp", "tcp udp icmp"],
    ["tcp:80,22,8000-8999", "tcp:22,80,8000-8999"],
    ["tcp:22-30 tcp:31 tcp:25-40", "tcp:22-40"],
    ["udp:1-65535", "udp"],
    ["udp:53 icmp any", "any"],
  ] as const
) {
  Deno.test(`access ${given} is ${expected}`, () => {
    strictEqual(formatAccess(words(given)).join(" "), expected);
    deepStrictEqual(words(expected), words(given));
  });
}

for (
  const word of ["", "http", "tcp:", "tcp:0", "tcp:65536", "tcp:9-8", "tcp:1,,2", "icmp:8", "TCP"]
) {
  Deno.test(`parseAccess() refuses ${JSON.stringify(word)}`, () => {
    throws(() => parseAccess(word), RangeError);
  });
}

Deno.test("contains() and overlaps() compare ranges and protocols", () => {
  const access = words("tcp:20-29 udp:53 icmp");
  ok(contains(access, words("tcp:22,25-29 icmp")));
  ok(!contains(access, words("tcp:22,30")));
  ok(!contains(access, words("any")));
  ok(overlaps(access, words("tcp:29-99")));
  ok(!overlaps(access, words("tcp:30-99 udp:54")));
  ok(overlaps(access, EVERYTHING));
  ok(overlaps(EVERYTHING, words("icmp")));
});

const POLICY = `{
  // Who is who.
  "groups": { "staff": ["tag:laptop", "key:${keyBase64(KEY)}"], "empty": [] },
  "rules": [
    { "from": "group:staff", "to": ["tag:web", "tag:db"], "allow": ["tcp:22", "icmp"] },
    { "from": "*", "to": "tag:web", "allow": "tcp:80,443" }, /* everybody */
    { "from": "tag:web", "to": "name:postgres", "allow": "tcp:5432" },
  ],
  "tests": [
    { "from": "group:staff", "to": "tag:web", "may": ["tcp:22,443", "icmp"], "mayNot": "tcp:23" },
    { "from": "*", "to": "tag:db", "mayNot": "any" },
    { "from": ["tag:laptop", "tag:web"], "to": "tag:db", "may": "tcp:22" },
  ],
}`;

Deno.test("a policy says what one node may open at another, and who sees whom", () => {
  const { policy } = readPolicy(POLICY);
  const role = (...tags: string[]) => policy.role(wordsOf({ tags }));
  const opens = (a: ReturnType<typeof role>, b: ReturnType<typeof role>) =>
    formatAccess(policy.access(a, b)).join(" ");
  strictEqual(opens(role("laptop"), role("web")), "tcp:22,80,443 icmp");
  strictEqual(opens(role("laptop"), role("db")), "tcp:22 icmp");
  strictEqual(opens(role(), role("web")), "tcp:80,443");
  strictEqual(opens(role("web"), role("laptop")), "");
  strictEqual(opens(policy.role(wordsOf({ nodeKey: KEY })), role("db")), "tcp:22 icmp");
  const named = policy.role(wordsOf({ name: "postgres", tags: [] }));
  strictEqual(opens(role("web"), named), "tcp:5432");
  ok(policy.sees(role("web"), role("laptop")));
  ok(!policy.sees(role(), role("db")));
  ok(!policy.sees(role(), role()));
  strictEqual(role("web"), role("web", "other"));
});

for (
  const [what, text, line, reason] of [
    ["no JSON", `{\n "rules": [\n  { "from" }\n ] }`, 3, "colon expected"],
    ["an empty file", "", 1, "value expected"],
    ["no rules", `// nothing\n{ "groups": {} }`, 2, "no rules: nobody would see anybody"],
    [
      "another field",
      `{ "rules": [],\n "acls": [] }`,
      2,
      "acls: unknown; known are $schema, groups, rules, tests",
    ],
    [
      "a group given twice",
      `{ "rules": [], "groups": { "a": [],\n "a": [] } }`,
      2,
      "groups.a: given twice",
    ],
    [
      "an unknown group",
      `{ "rules": [\n { "from": "*",\n "to": ["tag:x", "group:web"], "allow": "any" } ] }`,
      3,
      `rules[0].to[1]: there is no group "web"`,
    ],
    [
      "a bare word",
      `{ "rules": [ { "from": "web", "to": "*", "allow": "any" } ] }`,
      1,
      `rules[0].from: "web" is none of *, tag:TAG, name:NAME, key:KEY, group:GROUP`,
    ],
    [
      "a key that is none",
      `{ "rules": [ { "from": "key:abc", "to": "*", "allow": "any" } ] }`,
      1,
      `rules[0].from: "abc" is no node key: gretun-coord node list shows them`,
    ],
    [
      "ports that are none",
      `{ "rules": [ { "from": "*", "to": "*",\n "allow": ["icmp",\n "tcp:99999"] } ] }`,
      3,
      `rules[0].allow[1]: "99999" is no port from 1 to 65535, nor a range of them`,
    ],
    [
      "half a rule",
      `{ "rules": [ { "from": "*" } ] }`,
      1,
      "rules[0]: a rule needs from, to and allow",
    ],
    [
      "an empty list",
      `{ "rules": [ { "from": [], "to": "*", "allow": "any" } ] }`,
      1,
      "rules[0].from: empty",
    ],
    [
      "a test of nothing",
      `{ "rules": [], "tests": [ { "from": "*", "to": "*" } ] }`,
      1,
      "tests[0]: a test needs may or mayNot",
    ],
    [
      "a test that fails",
      `{ "rules": [], "tests": [\n { "from": "tag:a", "to": "*", "may": "tcp:1" } ] }`,
      2,
      "test: tag:a may open nothing at *, not all of tcp:1",
    ],
    [
      "a test that something is refused",
      `{ "rules": [ { "from": "*", "to": "*", "allow": "tcp" } ],\n"tests": [ { "from": "*", "to": "*", "mayNot": "tcp:22" } ] }`,
      2,
      "test: * may open tcp at *, and must not tcp:22",
    ],
  ] as const
) {
  Deno.test(`readPolicy() refuses ${what}, with its line`, () => {
    throws(() => readPolicy(text), (error) => {
      ok(error instanceof PolicyError);
      strictEqual(error.message, `line ${line}: ${reason}`);
      return true;
    });
  });
}

Deno.test("parsePolicy() reads a file whose tests fail", () => {
  const { tests } = parsePolicy(
    `{ "rules": [], "tests": [ { "from": "*", "to": "*", "may": "any" } ] }`,
  );
  strictEqual(tests.length, 1);
});
