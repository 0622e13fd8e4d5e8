import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { completionCommand } from "../../../lib/cli/gretun/completion.ts";
import { UsageError } from "../../../lib/errors.ts";

const HELP = new Map([
  [
    "up",
    "Usage: gretun up\n\n  --coordinator URL  where\n  --port-mapping on|off  ask\n  -v, --verbose      log more\n",
  ],
  ["ping", "Usage: gretun ping PEER\n\n  --peer PEER  which\n"],
  ["list", "Usage: gretun list\n\n  --json  JSON\n"],
]);

async function scriptFor(...args: string[]): Promise<string> {
  let text = "";
  const io = {
    stdout: (part: string) => void (text += part),
    stderr: () => {},
    signal: new AbortController().signal,
  };
  strictEqual(await completionCommand(async () => HELP).run(args, io), 0);
  return text;
}

/** What bash offers for these words, the last of which is being typed. */
async function offered(...words: string[]): Promise<string[]> {
  const command = `${await scriptFor("bash")}
    gretun() { echo "of-$2"; } # as the program says which there are
    COMP_WORDS=(${words.map((word) => `"${word}"`).join(" ")}); COMP_CWORD=${words.length - 1}
    _gretun; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await new Deno.Command("bash", { args: ["-c", command] }).output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}

Deno.test("completion bash: commands, then the flags of the command", async () => {
  deepStrictEqual(await offered("gretun", ""), ["up", "ping", "list"]);
  deepStrictEqual(await offered("gretun", "l"), ["list"]);
  deepStrictEqual(await offered("gretun", "up", "--"), [
    "--coordinator",
    "--port-mapping",
    "--verbose",
  ]);
  deepStrictEqual(await offered("gretun", "list", "--j"), ["--json"]);
  deepStrictEqual(await offered("gretun", "nothing", ""), []);
  deepStrictEqual(await offered("gretun", "help", "l"), ["list"]);
});

Deno.test("completion bash: values of a choice, and names of what is there", async () => {
  deepStrictEqual(await offered("gretun", "up", "--port-mapping", ""), ["on", "off"]);
  deepStrictEqual(await offered("gretun", "ping", ""), ["of-peers"]);
  deepStrictEqual(await offered("gretun", "ping", "--p"), ["--peer"]);
  deepStrictEqual(await offered("gretun", "ping", "--peer", "o"), ["of-peers"]);
});

Deno.test("completion zsh is bash's with the loader, fish has a line for each flag", async () => {
  match(await scriptFor("zsh"), /^autoload -Uz bashcompinit && bashcompinit\n_gretun\(\) \{/);
  match(await scriptFor("fish"), /^complete .*__fish_seen_subcommand_from up' -l coordinator$/m);
});

Deno.test("completion refuses other shells", async () => {
  for (const args of [[], ["tcsh"], ["bash", "zsh"], ["--json"]]) {
    await rejects(scriptFor(...args), UsageError, args.join());
  }
});
