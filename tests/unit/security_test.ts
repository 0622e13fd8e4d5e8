/** docs/security.md names a test for each promise: each of them is there. */
import { deepStrictEqual, ok } from "node:assert/strict";

const root = new URL("../../", import.meta.url);
const document = Deno.readTextFileSync(new URL("docs/security.md", root));

/** Promises are rows of two cells, of which the second has tests. */
function promises(): { promise: string; tests: string[] }[] {
  const [, promised] = document.split("\n## Promised\n");
  return [...promised!.split("\n## ")[0]!.matchAll(/^\| (?!promise|---)(.*?) \| (.*) \|$/gm)]
    .map(([, promise, cell]) => ({
      promise: promise!,
      tests: [...cell!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!),
    }));
}

/** Names that are made from less than that could be any name. */
const MIN_LITERAL = 20;

/** Whether there is such a test: by its name in the source, or by one that is made of it. */
function isThere(name: string, names: ReadonlySet<string>): boolean {
  return names.has(name) || [...names].some((made) => {
    if (!made.includes("…") || made.replaceAll("…", "").length < MIN_LITERAL) return false;
    const parts = made.split("…").map((part) => RegExp.escape(part));
    return new RegExp(`^${parts.join(".+")}$`).test(name);
  });
}

/** Names of all tests; what is filled in stands as "…". */
function testNames(): Set<string> {
  const names = new Set<string>();
  for (const source of testSources(new URL("tests/", root))) {
    for (
      const [, quoted] of source.matchAll(/Deno\.test\(\s*(?:\{\s*name:\s*)?("[^"\n]+"|`[^`\n]+`)/g)
    ) {
      names.add(quoted!.slice(1, -1).replace(/\$\{[^}]*\}/g, "…"));
    }
  }
  return names;
}

function* testSources(directory: URL): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(directory)) {
    if (isDirectory) yield* testSources(new URL(`${name}/`, directory));
    else if (name.endsWith(".ts")) yield Deno.readTextFileSync(new URL(name, directory));
  }
}

Deno.test("every promise of docs/security.md names tests, and all of them are there", () => {
  const names = testNames();
  ok(names.size > 1000);
  const all = promises();
  ok(all.length > 25, `${all.length} promises`);
  deepStrictEqual(all.filter(({ tests }) => tests.length === 0), []);
  deepStrictEqual(all.flatMap(({ tests }) => tests).filter((name) => !isThere(name, names)), []);
});
