/** `gretun completion`: a script by which a shell completes commands and flags. */
import { UsageError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
type Shell = typeof SHELLS[number];

/** Every command's flags, without dashes. */
type CommandFlags = ReadonlyMap<string, readonly string[]>;

/** `helpTexts` are those of all commands: each begins a line with each flag. */
export function completionCommand(helpTexts: () => Promise<ReadonlyMap<string, string>>): Command {
  return {
    summary: "print a script for completion in bash, zsh or fish",
    help: () =>
      "Usage: gretun completion bash|zsh|fish\n\n" +
      "  source <(gretun completion bash)\n" +
      "  source <(gretun completion zsh)\n" +
      "  gretun completion fish | source\n",
    async run(args: string[], io: CommandIo): Promise<number> {
      const shell = parseShell(args);
      const texts = [...await helpTexts()];
      io.stdout(script(shell, new Map(texts.map(([name, text]) => [name, flagsIn(text)]))));
      return EXIT_OK;
    },
  };
}

function flagsIn(help: string): string[] {
  return [...help.matchAll(/^ {2}(?:-\w, )?--([a-z0-9-]+)/gm)].map(([, flag]) => flag!);
}

function parseShell(args: readonly string[]): Shell {
  const shell = SHELLS.find((name) => name === args[0]);
  if (shell && args.length === 1) return shell;
  const given = args.length === 0
    ? "no shell is named"
    : `${JSON.stringify(args.join(" "))} is none`;
  throw new UsageError(`completion for which shell: ${given}`, `Name one of ${SHELLS.join(", ")}`);
}

function script(shell: Shell, commands: CommandFlags): string {
  if (shell === "fish") return fishScript(commands);
  const start = shell === "zsh" ? "autoload -Uz bashcompinit && bashcompinit\n" : "";
  return start + bashScript(commands);
}

function bashScript(commands: CommandFlags): string {
  const cases = [...commands].map(([name, flags]) =>
    `    ${name}) words="${flags.map((flag) => `--${flag}`).join(" ")}" ;;\n`
  );
  return `_gretun() {
  local words="${[...commands.keys()].join(" ")}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "\${COMP_WORDS[1]}" in
${cases.map((line) => "  " + line).join("")}      *) words="" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _gretun gretun
`;
}

function fishScript(commands: CommandFlags): string {
  const lines = [
    "complete -c gretun -f -n __fish_use_subcommand -a '" + [...commands.keys()].join(" ") + "'",
  ];
  for (const [name, flags] of commands) {
    for (const flag of flags) {
      lines.push(`complete -c gretun -n '__fish_seen_subcommand_from ${name}' -l ${flag}`);
    }
  }
  return lines.join("\n") + "\n";
}
