/**
 * `completion`: a script by which a shell completes commands, flags, values and names. It asks the
 * program, which knows, each time: `gretun completion words -- WORD...` prints what fits in place of
 * the last word, one a line with its help behind a tab, or FILES.
 */
import { UsageError } from "../../errors.ts";
import { type Command, EXIT_OK } from "../command.ts";
import { candidates, type Program } from "./candidates.ts";

export type { Place, Program } from "./candidates.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
type Shell = typeof SHELLS[number];

/** The shell has to look itself. */
const FILES = ":files";

export function completionCommand(program: Program): Command {
  const { name } = program;
  return {
    summary: "print a script for completion in bash, zsh or fish",
    help: () =>
      `Usage: ${name} completion ${SHELLS.join("|")}\n\n` +
      `  source <(${name} completion bash)     # in ~/.bashrc\n` +
      `  source <(${name} completion zsh)      # in ~/.zshrc\n` +
      `  ${name} completion fish | source      # in ~/.config/fish/config.fish\n`,
    async run(args, io) {
      if (args[0] === "words") io.stdout(await words(args.slice(args.indexOf("--") + 1), program));
      else io.stdout(SCRIPTS[parseShell(args)](name));
      return EXIT_OK;
    },
  };
}

async function words(typed: readonly string[], program: Program): Promise<string> {
  const found = await candidates(typed, program);
  if (found === "files") return `${FILES}\n`;
  return found.map(({ word, help }) => (help === "" ? word : `${word}\t${help}`) + "\n").join("");
}

function parseShell(args: readonly string[]): Shell {
  const shell = SHELLS.find((name) => name === args[0]);
  if (shell && args.length === 1) return shell;
  const given = args.length === 0
    ? "no shell is named"
    : `${JSON.stringify(args.join(" "))} is none`;
  throw new UsageError(`completion for which shell: ${given}`, `Name one of ${SHELLS.join(", ")}`);
}

/** Errors are not for who is typing. */
const ask = (name: string, typed: string) => `${name} completion words -- ${typed} 2>/dev/null`;

const SCRIPTS: Record<Shell, (name: string) => string> = {
  // A value behind "=" is a word of its own there.
  bash: (name) =>
    `_${functionName(name)}() {
  local line words=()
  while IFS= read -r line; do words+=("\${line%%$'\\t'*}"); done < <(
    ${ask(name, '"${COMP_WORDS[@]:1:COMP_CWORD}"')})
  COMPREPLY=()
  if [ "\${words[0]-}" = ${FILES} ]; then compopt -o default; return; fi
  if [ "\${COMP_WORDS[COMP_CWORD]}" = = ] || [ "\${COMP_WORDS[COMP_CWORD-1]}" = = ]; then
    words=("\${words[@]#*=}")
  fi
  COMPREPLY=("\${words[@]}")
}
complete -F _${functionName(name)} ${name}
`,
  zsh: (name) =>
    `(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
_${functionName(name)}() {
  local -a lines=("\${(@f)$(${ask(name, '"${(@)words[2,CURRENT]}"')})}")
  if [[ $lines[1] == ${FILES} ]]; then compset -P '--*='; _files; return; fi
  lines=("\${(@)lines//:/\\\\:}")
  lines=("\${(@)lines/$'\\t'/:}")
  [[ -n $lines[1] ]] && _describe -V ${name} lines
}
compdef _${functionName(name)} ${name}
`,
  fish: (name) =>
    `function __${functionName(name)}
    set -l typed (commandline -opc) (commandline -ct)
    set -l lines (${ask(name, "$typed[2..]")})
    if test "$lines[1]" = ${FILES}
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $lines
    end
end
complete -c ${name} -e
complete -c ${name} -f -k -a '(__${functionName(name)})'
`,
};

const functionName = (program: string) => program.replaceAll("-", "_");
