/**
 * docs/troubleshooting.md's list of messages, out of the source:
 *
 *     deno run -RW --no-config --no-lock tests/messages.ts        # writes it anew
 *
 * The messages with a remedy that the programs can print, as the source has them: errors with a hint,
 * findings, and log lines with a hint. What is filled in stands as "…".
 */

export interface Message {
  text: string;
  remedy: string;
}

/** Of one source file. Wrong command lines are left out: --help and the message itself explain them. */
export function messagesOf(source: string): Message[] {
  const found = [
    ...calls(
      source,
      /\bnew (?!Usage|Interrupted)\w*(?:Gretun|Dial|Daemon|Coord|Relay|Locked|NoTunnel)\w*Error\(/g,
    ),
    ...calls(source, /\blog\.(?:warn|error)\(/g)
      .map(([text, fields = ""]) => [text, field(fields, "hint")]),
    ...findings(source),
    ...calls(source, /\bE[A-Z]+: \[(?=\s*")/g),
    ...calls(source, /\bnew Refusal\(/g).map(([, text]) => [text, '"as the message says"']),
  ];
  return found.flatMap(([text, remedy]) => {
    if (text === undefined || remedy === undefined) return [];
    const message = { text: words(text), remedy: words(remedy) };
    return /[a-z]{3}/i.test(message.text) && message.remedy !== "" ? [message] : [];
  });
}

/** The arguments of each call that begins so. */
function calls(source: string, start: RegExp): string[][] {
  return [...source.matchAll(start)].map((match) => parts(source, match.index + match[0].length));
}

/** What follows `text` in object literals that go on with a remedy: findings. */
function findings(source: string): string[][] {
  return [...source.matchAll(/(?<=[{,]\s*)text(?=[:,])/g)].flatMap((match) => {
    const [first, ...rest] = parts(source, match.index);
    const remedy = rest.find((part) => part.startsWith("remedy:"))?.slice("remedy:".length);
    if (remedy === undefined) return [];
    const given = first === "text"
      ? lastText(source.slice(0, match.index))
      : first!.slice("text:".length);
    return given === undefined ? [] : [[given, remedy]];
  });
}

/** `const text = ...;` before it; undefined where it came from elsewhere. */
function lastText(source: string): string | undefined {
  const at = source.lastIndexOf("const text = ");
  return at < 0 ? undefined : source.slice(at + "const text = ".length).split(";\n")[0];
}

function field(object: string, name: string): string | undefined {
  const inner = object.trim().replace(/^\{|\}$/g, "");
  const found = parts(inner + "}", 0).find((part) => part.trim().startsWith(`${name}:`));
  return found?.trim().slice(name.length + 1);
}

/** What stands between commas, up to the bracket that closes. */
function parts(source: string, from: number): string[] {
  const found: string[] = [];
  let depth = 0;
  let start = from;
  for (let at = from; at < source.length; at++) {
    const character = source[at]!;
    if (`"'\``.includes(character)) at = endOfText(source, at);
    else if ("([{".includes(character)) depth++;
    else if (")]}".includes(character)) {
      if (depth-- > 0) continue;
      return [...found, source.slice(start, at)].map((part) => part.trim()).filter((p) => p !== "");
    } else if (character === "," && depth === 0) {
      found.push(source.slice(start, at));
      start = at + 1;
    }
  }
  return found;
}

/** Where a string or template ends that begins there. */
function endOfText(source: string, from: number): number {
  const quote = source[from]!;
  let at = from + 1;
  for (; at < source.length && source[at] !== quote; at++) {
    if (source[at] === "\\") at++;
    else if (quote === "`" && source.startsWith("${", at)) at = endOfInsertion(source, at + 2);
  }
  return at;
}

function endOfInsertion(source: string, from: number): number {
  let depth = 0;
  for (let at = from; at < source.length; at++) {
    if (`"'\``.includes(source[at]!)) at = endOfText(source, at);
    else if (source[at] === "{") depth++;
    else if (source[at] === "}" && depth-- === 0) return at;
  }
  return source.length;
}

/** Stands for a name until its place is known. */
const NAME = "\ue000";

/** Texts of an expression; alternatives of `a ? b : c` with a slash between, the rest as "…". */
function words(whole: string): string {
  const expression = whole.replace(/^[^"'`?]*\?\s/, ""); // a condition
  let text = "";
  for (let at = 0; at < expression.length; at++) {
    const character = expression[at]!;
    if (`"'\``.includes(character)) {
      const end = endOfText(expression, at);
      const literal = expression.slice(at + 1, end);
      text += character === "`" ? withoutInsertions(literal) : literal;
      at = end;
    } else if (character === ":" && text !== "") text += " / ";
    else if (/[\w.]/.test(character)) {
      const name = /^[\w.]+(\([^()]*\))?/.exec(expression.slice(at))![0];
      text += NAME;
      at += name.length - 1;
    }
  }
  return text.replace(/\\(.)/g, "$1").replace(/\ue000+(?= \/ )/g, "").replace(/\ue000+/g, "…")
    .replace(/…+/g, "…").replace(/\s+/g, " ").trim();
}

function withoutInsertions(template: string): string {
  let text = "";
  for (let at = 0; at < template.length; at++) {
    if (template.startsWith("${", at)) {
      text += "…";
      at = endOfInsertion(template, at + 2);
    } else text += template[at];
  }
  return text;
}

/** The table of the document, in the order of the alphabet. */
export function messageTable(): string {
  const messages = [...sources("lib")].filter(([path]) => !path.startsWith("lib/lab/"))
    .flatMap(([, source]) => messagesOf(source));
  const rows = new Map(messages.map(({ text, remedy }) => [text, row(text, remedy)]));
  const sorted = [...rows].toSorted(([a], [b]) => sortKey(a) < sortKey(b) ? -1 : 1);
  return ["| message | what to do |", "| --- | --- |", ...sorted.map(([, line]) => line), ""].join(
    "\n",
  );
}

/** Beginnings that are filled in do not count. */
const sortKey = (text: string) => text.replace(/^[^a-z]+/i, "").toLowerCase();

function row(text: string, remedy: string): string {
  const cell = (words: string) => words.replaceAll("|", "\\|");
  const said = /[a-z]{3}/i.test(remedy) ? cell(remedy) : "as the message says";
  return `| \`${cell(text)}\` | ${said} |`;
}

export function* sources(directory: string): Generator<[path: string, source: string]> {
  for (
    const { name, isDirectory } of Deno.readDirSync(new URL(`../${directory}`, import.meta.url))
  ) {
    const path = `${directory}/${name}`;
    if (isDirectory) yield* sources(path);
    else if (name.endsWith(".ts")) {
      yield [path, Deno.readTextFileSync(new URL(`../${path}`, import.meta.url))];
    }
  }
}

export const DOCUMENT = new URL("../docs/troubleshooting.md", import.meta.url);
const TABLE_ABOUT = "What is filled in stands as `…`. A `/` stands between alternatives.\n";
export const TABLE_HEADING = "\n## All messages with a remedy\n";

if (import.meta.main) {
  const [before] = Deno.readTextFileSync(DOCUMENT).split(TABLE_HEADING);
  Deno.writeTextFileSync(DOCUMENT, `${before}${TABLE_HEADING}\n${TABLE_ABOUT}\n${messageTable()}`);
}
