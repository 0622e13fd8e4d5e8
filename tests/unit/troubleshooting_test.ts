/** docs/troubleshooting.md has the messages that the programs print, word for word. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { DOCUMENT, messagesOf, messageTable, sources, TABLE_HEADING } from "../messages.ts";

const WRITE_ANEW =
  "messages have changed: run deno run -RW --no-config --no-lock tests/messages.ts";

const [guide, table] = Deno.readTextFileSync(DOCUMENT).split(TABLE_HEADING);

Deno.test("every message with a remedy has its entry: tests/messages.ts writes them", () => {
  ok(table);
  const entries = new Set(table.split("\n"));
  const wanted = messageTable().trimEnd().split("\n");
  ok(wanted.length > 120, `${wanted.length} messages were found`);
  deepStrictEqual(wanted.filter((line) => !entries.has(line)), [], WRITE_ANEW);
  deepStrictEqual(table.trimEnd().split("\n").length - 3, wanted.length, WRITE_ANEW);
});

Deno.test("what the guide quotes is in the source", () => {
  const source = [...sources("lib")].map(([, text]) => text).join("\n");
  const quoted = [...guide!.matchAll(/^- (`[^`]+`(?:, `[^`]+`)*)/gm)]
    .flatMap(([, list]) => [...list!.matchAll(/`([^`]+)`/g)].map(([, message]) => message!));
  ok(quoted.length > 20);
  const isThere = (message: string) =>
    message.split("…").every((part) => source.includes(part.trim().replaceAll('"', '\\"')));
  deepStrictEqual(
    quoted.filter((message) => !isThere(message) && !isVerb(message, source)),
    [],
  );
});

/** One of the two that are made of a verb. */
function isVerb(message: string, source: string): boolean {
  const [, verb] = /^coordinator (refuses|does not answer), trying again$/.exec(message) ?? [];
  return verb !== undefined && source.includes("`coordinator ${verb}, trying again`") &&
    source.includes(`"${verb}"`);
}

Deno.test("messagesOf() reads errors, findings and log lines, however they are written", () => {
  const source = `
    throw new GretunError(
      \`cannot read \${path}: \${errorText(cause, { a: "}" })}\`,
      isRoot ? "Run it again" : \`Ask \${who("x")}\`,
      { cause },
    );
    throw new UsageError("--x is wrong", "Give another");
    log.warn("hub does not answer", { hub, hint: "See its log, " + "there" });
    log.warn("nothing to do about it", { hub });
    found({ kind: "a", text: \`all \${count} peers (\${b}) lost\`, remedy: "Look" });
    const text = \`the path \${x} is odd\`;
    return [{ text, remedy: "See there" }];
    const M = { EPERM: ["not allowed", "Run as root"] };
  `;
  deepStrictEqual(messagesOf(source).map(({ text, remedy }) => `${text} | ${remedy}`), [
    "cannot read …: … | Run it again / Ask …",
    "hub does not answer | See its log, there",
    "all … peers (…) lost | Look",
    "the path … is odd | See there",
    "not allowed | Run as root",
  ]);
  strictEqual(messagesOf("").length, 0);
});
