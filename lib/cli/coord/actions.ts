/** A command of several actions: `gretun-coord node list`, `gretun-coord token create`. */
import { UsageError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_FAILURE, EXIT_OK } from "../command.ts";
import { flagsHelp, type FlagSpecs, parseFlags } from "../flags.ts";

/** What is printed: text, or JSON where that is asked for. */
export interface Answer {
  json: unknown;
  text: string;
  /** It is an answer, and a bad one. */
  isFailure?: boolean;
}

export interface Action {
  /** The words that it takes, as its help names them: "NODE TAG...". */
  words: string;
  summary: string;
  help(): string;
  run(words: string[], rest: string[]): Promise<{ answer: Answer; isJson: boolean }>;
}

/** Words come before flags; their number is checked by how `words` names them. */
export function action<const S extends FlagSpecs & { json: { type: "boolean" } }>(
  options: {
    words: string;
    summary: string;
    flags: S;
    run(words: string[], flags: ReturnType<typeof parseFlags<S>>): Promise<Answer>;
  },
): Action {
  const { words: names, summary, flags: specs } = options;
  return {
    words: names,
    summary,
    help: () => flagsHelp(specs),
    async run(words, rest) {
      const flags = parseFlags(rest, specs);
      const wanted = names === "" ? [] : names.split(" ");
      const isEnough = wanted.at(-1)?.endsWith("...")
        ? words.length >= wanted.length - 1
        : words.length === wanted.length;
      if (!isEnough) {
        throw new UsageError(
          words.length < wanted.length
            ? `${wanted[words.length]} is missing`
            : `unexpected argument ${JSON.stringify(words[wanted.length])}`,
          names === "" ? "Give flags only" : `Give ${names}, then flags`,
        );
      }
      const answer = await options.run(words, flags);
      return { answer, isJson: (flags as { json: boolean }).json };
    },
  };
}

export function actionsCommand(
  name: string,
  summary: string,
  actions: Record<string, Action>,
): Command {
  const usage = Object.entries(actions).map(([verb, { words, summary }]) =>
    `  ${`${verb} ${words}`.padEnd(24)}${summary}`
  );
  const help = () => {
    const flags = Object.entries(actions).map(([verb, { help }]) => `${verb}:\n${help()}\n`);
    return `Usage: gretun-coord ${name} ACTION [flags]\n\n${usage.join("\n")}\n\n${
      flags.join("\n")
    }`;
  };
  return {
    summary,
    help,
    async run(args: string[], io: CommandIo): Promise<number> {
      const [verb = "", ...others] = args;
      const chosen = Object.hasOwn(actions, verb) ? actions[verb] : undefined;
      if (!chosen) {
        const given = verb === "" ? "no action is given" : `unknown action ${JSON.stringify(verb)}`;
        throw new UsageError(given, `Choose one of: ${Object.keys(actions).join(", ")}`);
      }
      const end = others.findIndex((word) => word.startsWith("-"));
      const count = end === -1 ? others.length : end;
      const { answer, isJson } = await chosen.run(others.slice(0, count), others.slice(count));
      io.stdout(isJson ? JSON.stringify(answer.json, null, 2) + "\n" : answer.text);
      return answer.isFailure ? EXIT_FAILURE : EXIT_OK;
    },
  };
}
