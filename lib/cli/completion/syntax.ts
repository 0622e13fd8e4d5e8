/** What a command takes, read from its help text, which every command has: pure. */

export interface Syntax {
  /** What follows the command, as its usage names it: "PEER", "NAME...", "bash|zsh|fish". */
  words: readonly string[];
  flags: readonly FlagSyntax[];
  /** Of `gretun-coord token create`, `gretun hub status`. */
  actions: ReadonlyMap<string, Syntax>;
  summary: string;
}

export interface FlagSyntax {
  /** "--verbose" */
  name: string;
  /** "-v" */
  short?: string;
  /** Of the value, as in "--port PORT"; absent where there is none. */
  value?: string;
  help: string;
}

/** What stands for a word of the command line; several alternatives are its values. */
const WORD = /^\[?((?:[A-Z][A-Z:]*|[a-z]+(?:\|[a-z]+)+)(?:\.\.\.)?)\]?$/;

/** `program` and `command` as in "Usage: gretun ping PEER [flags]". */
export function readSyntax(program: string, command: string, help: string): Syntax {
  const [main, ...sections] = help.split(/^(?=[a-z][a-z ]*:$)/m);
  const [usage = "", ...lines] = main!.split("\n");
  const listed = new Map(lines.flatMap((line) => {
    const [, verb, words, summary] = /^ {2}([a-z]+)((?: [A-Z:.]+)*) {2,}(.*)$/.exec(line) ?? [];
    return verb === undefined ? [] : [[verb, { words: wordsOf(words!), summary: summary! }]];
  }));
  const actions = sections.map((section): [string, Syntax] => {
    const verb = section.replace(`${command} `, "").match(/^[a-z]+/)![0];
    const { words = [], summary = "" } = listed.get(verb) ?? {};
    return [verb, { words, summary, flags: flagsOf(section), actions: new Map() }];
  });
  return {
    words: wordsOf(usage.replace(`Usage: ${program} ${command}`, "").replace("ACTION", "")),
    flags: flagsOf(main!),
    actions: new Map(actions),
    summary: "",
  };
}

/** Without flags, which are listed elsewhere, and their values. */
function wordsOf(usage: string): string[] {
  const [own = ""] = usage.replace(/\[?--[a-z-]+ [A-Z:]+\]?/g, "").split("[--");
  return own.split(" ").flatMap((word) => WORD.exec(word)?.[1] ?? []);
}

function flagsOf(help: string): FlagSyntax[] {
  return [...help.matchAll(/^ {2}(?:(-\w), )?(--[a-z0-9-]+)(?: (\S+))? {2,}(.*)$/gm)]
    .map(([, short, name, value, text]) => ({
      name: name!,
      ...(short === undefined ? {} : { short }),
      ...(value === undefined ? {} : { value }),
      help: text!,
    }));
}
