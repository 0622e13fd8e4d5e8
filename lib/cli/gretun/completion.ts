/** `gretun completion`: a script by which a shell completes commands, flags, values and names. */
import { UsageError } from "../../errors.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
type Shell = typeof SHELLS[number];

/** What is there now, one name a line: the scripts ask for it. */
const NAMES = ["tunnels", "peers"] as const;
type Names = typeof NAMES[number];

/** Commands that take a name, and the flag that does. */
const NAMED: [command: string, names: Names, flag: string][] = [
  ["status", "tunnels", "name"],
  ["delete", "tunnels", "name"],
  ["health", "tunnels", "name"],
  ["ping", "peers", "peer"],
  ["wait", "peers", "peer"],
];

/** Every command's flags, without dashes, each with the values that there are, if they are few. */
type CommandFlags = ReadonlyMap<string, readonly { flag: string; choices: readonly string[] }[]>;

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
      const names = NAMES.find((each) => each === args[0]);
      if (names) {
        io.stdout((await namesNow(names)).map((name) => `${name}\n`).join(""));
        return EXIT_OK;
      }
      const shell = parseShell(args);
      const texts = [...await helpTexts()];
      io.stdout(script(shell, new Map(texts.map(([name, text]) => [name, flagsIn(text)]))));
      return EXIT_OK;
    },
  };
}

/** None where nobody can be asked: a shell shows no errors while somebody types. */
async function namesNow(names: Names): Promise<string[]> {
  try {
    if (names === "tunnels") {
      const { listTunnels, openHost } = await import("../../tunnel/mod.ts");
      using host = openHost();
      return listTunnels(host).map(({ name }) => name);
    }
    const { askDaemon } = await import("../../daemon/control.ts");
    const { socketToAsk } = await import("./state_dir.ts");
    const { peers } = await askDaemon(
      await socketToAsk({ "state-dir": undefined, instance: undefined }),
    );
    return peers.map(({ name }) => name).filter((name) => /^[\w.-]+$/.test(name));
  } catch {
    return [];
  }
}

function flagsIn(help: string): { flag: string; choices: string[] }[] {
  return [...help.matchAll(/^ {2}(?:-\w, )?--([a-z0-9-]+)(?: ([a-z0-9-]+(?:\|[a-z0-9-]+)+) )?/gm)]
    .map(([, flag, choices]) => ({ flag: flag!, choices: choices?.split("|") ?? [] }));
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
  const flags = [...commands].map(([name, flags]) =>
    `      ${name}) words="${flags.map(({ flag }) => `--${flag}`).join(" ")}" ;;\n`
  );
  const values = [...commands].flatMap(([name, flags]) =>
    flags.filter(({ choices }) => choices.length > 0).map(({ flag, choices }) =>
      `      "${name} --${flag}") words="${choices.join(" ")}" ;;\n`
    )
  );
  const byFlag = NAMED.map(([name, names, flag]) =>
    `      "${name} --${flag}") words="$(gretun completion ${names})" ;;\n`
  );
  const byPlace = NAMED.map(([name, names]) =>
    `      ${name}/[!-]*|${name}/) words="$(gretun completion ${names})" ;;\n`
  );
  return `_gretun() {
  local words="${[...commands.keys()].join(" ")}" word="\${COMP_WORDS[COMP_CWORD]}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "\${COMP_WORDS[1]}" in
      help) ;;
${flags.join("")}      *) words="" ;;
    esac
    case "\${COMP_WORDS[1]}/$word" in
${byPlace.join("")}    esac
    case "\${COMP_WORDS[1]} \${COMP_WORDS[COMP_CWORD-1]}" in
${values.join("")}${byFlag.join("")}      "status --peer") words="$(gretun completion peers)" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _gretun gretun
`;
}

function fishScript(commands: CommandFlags): string {
  const of = (name: string) => `complete -c gretun -n '__fish_seen_subcommand_from ${name}'`;
  return [
    `complete -c gretun -f -n __fish_use_subcommand -a '${[...commands.keys()].join(" ")}'`,
    `${of("help")} -f -a '${[...commands.keys()].join(" ")}'`,
    ...[...commands].flatMap(([name, flags]) =>
      flags.map(({ flag, choices }) =>
        `${of(name)} -l ${flag}` + (choices.length > 0 ? ` -xa '${choices.join(" ")}'` : "")
      )
    ),
    ...NAMED.map(([name, names]) => `${of(name)} -f -a '(gretun completion ${names})'`),
  ].join("\n") + "\n";
}
