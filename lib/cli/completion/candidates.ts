/** What fits at the end of a command line that is being typed: pure, but for names that are asked for. */
import type { Command } from "../command.ts";
import { type FlagSyntax, readSyntax, type Syntax } from "./syntax.ts";

export interface Program {
  name: string;
  /** A command's body is loaded when it is needed. */
  commands: Readonly<Record<string, () => Promise<{ command: Command }>>>;
  /** Whose flags stand without a command, if there is one. */
  defaultCommand?: string;
  /** What there is now for a place; none where it has other values, or nobody can be asked. */
  names(place: Place): Promise<readonly string[]>;
}

export interface Place {
  command: string;
  /** Whose value it is, without dashes; else a word of the command. */
  flag?: string;
  /** As help has it: "PEER", "NODE". */
  stands: string;
  /** What `--NAME` has on this command line. */
  given(name: string): string | undefined;
}

export interface Candidate {
  word: string;
  help: string;
}

/** For the last of these words, which begins so; "files" where only the shell knows them. */
export async function candidates(
  typed: readonly string[],
  program: Program,
): Promise<readonly Candidate[] | "files"> {
  const words = joinedValues(typed);
  const begun = words.at(-1) ?? "";
  const all = await allThatFit(words.slice(0, -1), begun, program);
  return all === "files" ? all : all.filter(({ word }) => word.startsWith(begun));
}

/** bash takes "--flag=value" for three words. */
function joinedValues(typed: readonly string[]): string[] {
  const words: string[] = [];
  for (const [i, word] of typed.entries()) {
    const isJoined = word === "=" && words.at(-1)?.startsWith("--");
    if (isJoined || (typed[i - 1] === "=" && words.at(-1)?.endsWith("="))) {
      words.push(words.pop() + word);
    } else words.push(word);
  }
  return words;
}

async function allThatFit(
  before: readonly string[],
  begun: string,
  program: Program,
): Promise<Candidate[] | "files"> {
  const { commands, defaultCommand } = program;
  const first = before[0] ?? begun;
  if (first === "help") return before.length === 1 ? await allCommands(program) : [];
  const isNamed = before.length > 0 && Object.hasOwn(commands, first);
  const command = isNamed ? first : first.startsWith("-") ? defaultCommand : undefined;
  if (command === undefined) return before.length === 0 ? await allCommands(program) : [];
  const { command: { help } } = await commands[command]!();
  const whole = readSyntax(program.name, command, help());
  const words = isNamed ? before.slice(1) : before;
  const action = whole.actions.get(words[0] ?? "");
  if (words.length === 0 && whole.actions.size > 0 && !begun.startsWith("-")) {
    return [...whole.actions].map(([word, { summary }]) => ({ word, help: summary }));
  }
  const line = { command, syntax: action ?? whole, words: action ? words.slice(1) : words };
  return await nextInLine(line, begun, program);
}

/** A command, or an action of one, and what stands behind it. */
interface Line {
  command: string;
  syntax: Syntax;
  words: readonly string[];
}

async function nextInLine(
  { command, syntax, words }: Line,
  begun: string,
  program: Program,
): Promise<Candidate[] | "files"> {
  if (words.includes("--")) return "files"; // another program's
  const place = { command, given: (name: string) => given(words, name) };
  const [, assigned] = /^(--[a-z0-9-]+)=/.exec(begun) ?? [];
  const flag = takesValue(syntax, assigned ?? words.at(-1));
  if (flag) {
    const values = await valuesOf(
      { ...place, stands: flag.value, flag: flag.name.slice(2) },
      program,
    );
    if (values === "files" || assigned === undefined) return values;
    return values.map(({ word, help }) => ({ word: `${assigned}=${word}`, help }));
  }
  const stands = begun.startsWith("-") ? undefined : wordAt(syntax, words);
  const values = stands === undefined ? [] : await valuesOf({ ...place, stands }, program);
  if (values === "files" || values.length > 0) return values;
  return syntax.flags.map(({ name, help }) => ({ word: name, help }));
}

async function allCommands({ commands }: Program): Promise<Candidate[]> {
  return await Promise.all(
    Object.entries(commands).map(async ([word, load]) => ({
      word,
      help: (await load()).command.summary,
    })),
  );
}

async function valuesOf(place: Place, program: Program): Promise<Candidate[] | "files"> {
  const stands = place.stands.replace("...", "");
  if (stands === "FILE" || stands === "DIR") return "files";
  const words = stands.includes("|")
    ? stands.split("|")
    : await program.names({ ...place, stands });
  return words.map((word) => ({ word, help: "" }));
}

function takesValue({ flags }: Syntax, word: string | undefined) {
  return flags.filter(hasValue).find(({ name, short }) =>
    word === name || word === (short ?? name)
  );
}

const hasValue = (flag: FlagSyntax): flag is FlagSyntax & { value: string } =>
  flag.value !== undefined;

/** What the next word that is no flag and no flag's value stands for. */
function wordAt(syntax: Syntax, words: readonly string[]): string | undefined {
  const count =
    words.filter((word, i) => !word.startsWith("-") && !takesValue(syntax, words[i - 1]))
      .length;
  const last = syntax.words.at(-1);
  return syntax.words[count] ?? (last?.endsWith("...") ? last : undefined);
}

function given(words: readonly string[], name: string): string | undefined {
  const flag = `--${name}`;
  const assigned = words.find((word) => word.startsWith(`${flag}=`))?.slice(flag.length + 1);
  const at = words.indexOf(flag);
  return assigned ?? (at < 0 ? undefined : words[at + 1]);
}
