/** `gretun-coord policy`: files of policies, and the policy of a running coordinator. */
import { UsageError } from "../../errors.ts";
import { action, actionsCommand, type Answer } from "./actions.ts";
import { ask, ASK_FLAGS, type Json } from "./ask.ts";

const { json } = ASK_FLAGS;
const readFile = (path: string) => Deno.readTextFileSync(path);

export const command = actionsCommand("policy", "check, test, reload and explain the policy", {
  check: action({
    words: "FILE",
    summary: "whether a coordinator would take it",
    flags: { json },
    run: async ([path]) => {
      const { readPolicyFile } = await import("../../coord/serve.ts");
      const { policy, groups, tests } = readPolicyFile(path!, readFile);
      const found = { rules: policy.rules.length, groups, tests: tests.length };
      const text =
        `${path} is good: ${found.rules} rules, ${groups} groups, ${found.tests} tests\n`;
      return { json: found, text };
    },
  }),
  test: action({
    words: "FILE",
    summary: "run the tests in it, one by one",
    flags: { json },
    run: ([path]) => testAll(path!),
  }),
  reload: action({
    words: "",
    summary: "read the file again, as SIGHUP does",
    flags: ASK_FLAGS,
    run: async (_words, flags) => {
      const status = await ask(flags, "/v1/policy/reload", {});
      return { json: status, text: `${describePolicy(status)}\n` };
    },
  }),
  explain: action({
    words: "NODE NODE:PORT",
    summary: "whether one may open that, and why (PORT, udp:PORT or icmp)",
    flags: ASK_FLAGS,
    run: async ([from, target], flags) => {
      const answer = await ask(flags, "/v1/policy/explain", { from, ...parseTarget(target!) });
      return { json: answer, text: explanation(answer) };
    },
  }),
});

/** In one line, as the coordinator tells it. */
export function describePolicy({ file, rules, groups, since_ms, refused }: Json): string {
  const since = new Date(Number(since_ms)).toISOString();
  const again = refused === undefined ? "" : `; refused since: ${refused}`;
  return `${file}, ${rules} rules, ${groups} groups, since ${since}${again}`;
}

async function testAll(path: string): Promise<Answer> {
  const { readPolicyFile } = await import("../../coord/serve.ts");
  const { parsePolicy, PolicyError, runTest } = await import("../../policy/mod.ts");
  const { policy, tests } = readPolicyFile(path, readFile, parsePolicy);
  const results = tests.map((test) => {
    try {
      runTest(policy, test);
      return { line: test.line, passed: true };
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error;
      return { line: test.line, passed: false, reason: error.message };
    }
  });
  const lines = results.map(({ line, reason }) => reason ?? `line ${line}: holds`);
  const isGood = results.every(({ passed }) => passed);
  const text = [
    ...lines,
    `${results.filter(({ passed }) => passed).length} of ${results.length} hold`,
  ];
  return { json: results, text: text.join("\n") + "\n", ...(isGood ? {} : { isFailure: true }) };
}

/** "web:443", "web:udp:53", "web:icmp". Throws `UsageError`. */
function parseTarget(text: string): { to: string; access: string } {
  const [, to, service] = /^(.+?):((?:(?:tcp|udp):)?\d+|icmp)$/.exec(text) ?? [];
  if (!to || !service) {
    throw new UsageError(
      `${JSON.stringify(text)} is no node with a port`,
      "Give NODE:PORT, NODE:udp:PORT or NODE:icmp",
    );
  }
  return { to, access: /^\d/.test(service) ? `tcp:${service}` : service };
}

function explanation({ from, to, access, allowed, visible, rules, policy }: Json): string {
  const what = `${from} may ${allowed ? "" : "not "}open ${access} at ${to}`;
  if (!policy) return `${what}: there is no policy\n`;
  if (!visible) return `${what}: they do not see each other\n`;
  const lines = (rules as Json[]).map(({ line, allow }) =>
    `  line ${line} allows ${(allow as string[]).join(" ")}\n`
  );
  return `${what}${lines.length === 0 ? ": no rule is about that pair" : ""}\n${lines.join("")}`;
}
