/** The published schema accepts what the parser accepts, and refuses what can be told by form. */
import { ok, strictEqual } from "node:assert/strict";
import jsonc from "jsonc-parser";
import { parsePolicy, PolicyError } from "../../../lib/policy/mod.ts";
import schema from "../../../docs/policy.schema.json" with { type: "json" };

type Schema = Record<string, unknown>;

/** Of JSON Schema, as much as ours uses; another keyword is an error. */
const KEYWORDS: Record<string, (rule: never, value: unknown, schema: Schema) => boolean> = {
  $ref: (ref: string, value) => {
    const name = ref.replace("#/$defs/", "") as keyof typeof schema.$defs;
    return isValid(schema.$defs[name], value);
  },
  type: (type: string, value) =>
    type === (Array.isArray(value) ? "array" : value === null ? "null" : typeof value),
  pattern: (pattern: string, value) => typeof value !== "string" || new RegExp(pattern).test(value),
  items: (items: Schema, value) =>
    !Array.isArray(value) || value.every((item) => isValid(items, item)),
  minItems: (min: number, value) => !Array.isArray(value) || value.length >= min,
  anyOf: (all: Schema[], value) => all.some((one) => isValid(one, value)),
  required: (names: string[], value) => names.every((name) => Object.hasOwn(Object(value), name)),
  properties: (known: Record<string, Schema>, value) =>
    Object.entries(Object(value)).every(([name, one]) => !known[name] || isValid(known[name], one)),
  additionalProperties: (rest: Schema | false, value, { properties = {} }) =>
    Object.entries(Object(value)).every(([name, one]) =>
      Object.hasOwn(properties as object, name) || (rest !== false && isValid(rest, one))
    ),
};
const SAYS_NOTHING = ["$schema", "title", "description", "$defs"];

function isValid(schema: Schema, value: unknown): boolean {
  return Object.entries(schema).every(([keyword, rule]) => {
    if (SAYS_NOTHING.includes(keyword)) return true;
    const check = KEYWORDS[keyword];
    ok(check, `the schema uses ${keyword}`);
    return check(rule as never, value, schema);
  });
}

function parses(text: string): boolean {
  try {
    parsePolicy(text);
    return true;
  } catch (error) {
    ok(error instanceof PolicyError);
    return false;
  }
}

const KEY = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const rule = (from: string, to: string, allow: string) =>
  `{ "rules": [{ "from": ${from}, "to": ${to}, "allow": ${allow} }] }`;

for (
  const [text, isGood] of [
    [`{ "rules": [] }`, true],
    [`{ "$schema": "policy.schema.json", "rules": [], "groups": {}, "tests": [] } // end`, true],
    [rule(`"*"`, `["tag:a", "name:b", "key:${KEY}"]`, `"any"`), true],
    [rule(`"*"`, `"*"`, `["tcp", "udp:53", "tcp:22,80-90", "icmp"]`), true],
    [
      `{ "groups": { "g": ["tag:a"] }, "rules": [], "tests": [
       { "from": "group:g", "to": "*", "may": "icmp" },
       { "from": "*", "to": "*", "mayNot": ["any"] }] }`,
      true,
    ],
    [`{ "groups": { "g": ["group:h"] }, "rules": [] }`, false],
    [`{ "groups": [], "rules": [] }`, false],
    [`{}`, false],
    [`[]`, false],
    [`{ "rules": {} }`, false],
    [`{ "rules": [], "hosts": {} }`, false],
    [rule(`"web"`, `"*"`, `"any"`), false],
    [rule(`"tag:"`, `"*"`, `"any"`), false],
    [rule(`"key:abc"`, `"*"`, `"any"`), false],
    [rule(`7`, `"*"`, `"any"`), false],
    [rule(`[]`, `"*"`, `"any"`), false],
    [rule(`"*"`, `"*"`, `[]`), false],
    [rule(`"*"`, `"*"`, `"sctp"`), false],
    [rule(`"*"`, `"*"`, `"tcp:a"`), false],
    [`{ "rules": [{ "from": "*", "to": "*" }] }`, false],
    [`{ "rules": [{ "from": "*", "to": "*", "allow": "any", "deny": "icmp" }] }`, false],
    [`{ "rules": [], "tests": [{ "from": "*", "to": "*" }] }`, false],
  ] as const
) {
  Deno.test(`schema and parser ${isGood ? "accept" : "refuse"} ${text}`, () => {
    strictEqual(parses(text), isGood);
    strictEqual(isValid(schema, jsonc.parse(text)), isGood);
  });
}
