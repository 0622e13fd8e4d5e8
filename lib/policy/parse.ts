/** The file of a policy; docs/policy.schema.json says the same. */
import { nodeKeyFromBase64 } from "../keys.ts";
import { type Access, NOTHING, parseAccess, union } from "./access.ts";
import { Value } from "./document.ts";
import { EVERYBODY, Policy, type Rule, type Word } from "./policy.ts";
import { type PolicyTest, runTest } from "./trial.ts";

export interface PolicyFile {
  policy: Policy;
  groups: number;
  tests: readonly PolicyTest[];
}

type Groups = ReadonlyMap<string, readonly Word[]>;

/** Whether its tests hold is another matter: {@link readPolicy}. Throws `PolicyError`. */
export function parsePolicy(text: string): PolicyFile {
  const root: Value = Value.of(text);
  const fields = root.record(["$schema", "groups", "rules", "tests"]);
  if (!fields.rules) root.fail("no rules: nobody would see anybody");
  const named = [...fields.groups?.fields() ?? []];
  const groups = new Map(named.map(([name, members]) => [
    name,
    members.list().map((member) => parseWord(member)),
  ]));
  return {
    policy: new Policy(fields.rules.list().map((rule) => parseRule(rule, groups))),
    groups: groups.size,
    tests: (fields.tests?.list() ?? []).map((test) => parseTest(test, groups)),
  };
}

/** A policy that may come into force: its own tests hold. Throws `PolicyError`. */
export function readPolicy(text: string): PolicyFile {
  const file = parsePolicy(text);
  for (const test of file.tests) runTest(file.policy, test);
  return file;
}

function parseRule(value: Value, groups: Groups): Rule {
  const { from, to, allow } = value.record(["from", "to", "allow"]);
  if (!from || !to || !allow) value.fail("a rule needs from, to and allow");
  const side = (given: Value) => new Set(given.strings().flatMap((one) => members(one, groups)));
  return { line: value.line, from: side(from), to: side(to), allow: accessOf(allow) };
}

function parseTest(value: Value, groups: Groups): PolicyTest {
  const { from, to, may, mayNot } = value.record(["from", "to", "may", "mayNot"]);
  if (!from || !to) value.fail("a test needs from and to");
  if (!may && !mayNot) value.fail("a test needs may or mayNot");
  return {
    line: value.line,
    from: subjects(from, groups),
    to: subjects(to, groups),
    may: may ? accessOf(may) : NOTHING,
    mayNot: mayNot ? accessOf(mayNot) : NOTHING,
  };
}

/** A node that is all of the words; of a group, one for each member. */
function subjects(value: Value, groups: Groups): Word[][] {
  const all = value.strings().map((one) => members(one, groups));
  if (all.length === 1) return all[0]!.map((word) => [EVERYBODY, word]);
  return [[EVERYBODY, ...all.flat()]];
}

function members(value: Value, groups: Groups): readonly Word[] {
  const [, name] = /^group:(.*)$/.exec(value.string()) ?? [];
  if (name === undefined) return [parseWord(value)];
  return groups.get(name) ?? value.fail(`there is no group ${JSON.stringify(name)}`);
}

function parseWord(value: Value): Word {
  const text = value.string();
  if (text === EVERYBODY) return text;
  const [, kind, rest] = /^(tag|name|key):(.+)$/.exec(text) ?? [];
  if (kind === undefined) {
    value.fail(`${JSON.stringify(text)} is none of *, tag:TAG, name:NAME, key:KEY, group:GROUP`);
  }
  if (kind !== "key") return text;
  try {
    return `key:${nodeKeyFromBase64(rest!)}`;
  } catch {
    return value.fail(`${JSON.stringify(rest)} is no node key: gretun-coord node list shows them`);
  }
}

function accessOf(value: Value): Access {
  return union(
    ...value.strings().map((word) => {
      try {
        return parseAccess(word.string());
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        return word.fail(error.message);
      }
    }),
  );
}
