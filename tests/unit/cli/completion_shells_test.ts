/** The scripts of `completion`, in the shells that they are for. The program behind them is a stub. */
import { deepStrictEqual, match } from "node:assert/strict";
import { completionCommand } from "../../../lib/cli/completion/mod.ts";

/** What the stub is asked, and what it answers. */
const ANSWERS: Record<string, string> = {
  "st": "status\\tshow: all\\nstun\\task\\n",
  "up --port-mapping =": "--port-mapping=on\\n--port-mapping=off\\n",
  "up --port-mapping = of": "--port-mapping=off\\n",
  "up --port-mapping=of": "--port-mapping=off\\n",
  "ping ": "alice\\nbob\\n",
  "ping a": "alice\\n",
  "up --ca cert": ":files\\n",
};

/** A key that prints the line as completion has left it, and takes it away. */
const ZSH_KEY = `told() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N told; bindkey '^X' told`;

const isThere = (shell: string) =>
  (Deno.env.get("PATH") ?? "").split(":").some((directory) => {
    try {
      return Deno.statSync(`${directory}/${shell}`).isFile;
    } catch {
      return false;
    }
  });

/** What a shell prints, in a directory with the stub, the script, and a file to name. */
async function printed(shell: string, ...args: string[]): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "gretun-completion-" });
  try {
    const cases = Object.entries(ANSWERS).map(([asked, answer]) =>
      `"${asked}") printf %b '${answer}' ;;`
    );
    const stub = `#!/bin/sh\nshift 3\ncase "$*" in\n${cases.join("\n")}\nesac\n`;
    await Deno.writeTextFile(`${directory}/gretun`, stub, { mode: 0o755 });
    await Deno.writeTextFile(`${directory}/certificate.pem`, "");
    await Deno.writeTextFile(`${directory}/zsh_key`, ZSH_KEY);
    const command = completionCommand({
      ...{ name: "gretun", commands: {}, names: () => Promise.resolve([]) },
    });
    await command.run([shell], {
      stdout: (text) => Deno.writeTextFileSync(`${directory}/script`, text),
      stderr: () => {},
      signal: new AbortController().signal,
    });
    const { stdout, stderr } = await new Deno.Command(shell, {
      args,
      cwd: directory,
      clearEnv: true,
      env: { PATH: `${directory}:${Deno.env.get("PATH")}`, HOME: directory, TERM: "dumb" },
    }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test({
  name: "bash completes commands, values behind = and names, and leaves files to itself",
  ignore: !isThere("bash"),
  async fn() {
    const offered = async (...words: string[]) => {
      const list = words.map((word) => `'${word}'`).join(" ");
      const text = await printed(
        ...["bash", "--norc", "-uc"],
        `. ./script; compopt() { echo "$@"; }
        COMP_WORDS=(gretun ${list}); COMP_CWORD=${words.length}
        _gretun; printf '%s\\n' "\${COMPREPLY[@]}"; complete -p gretun`,
      );
      return text.split("\n").filter((line) => line !== "");
    };
    const last = "complete -F _gretun gretun";
    deepStrictEqual(await offered("st"), ["status", "stun", last]);
    deepStrictEqual(await offered("up", "--port-mapping", "="), ["on", "off", last]);
    deepStrictEqual(await offered("up", "--port-mapping", "=", "of"), ["off", last]);
    deepStrictEqual(await offered("ping", ""), ["alice", "bob", last]);
    deepStrictEqual(await offered("up", "--ca", "cert"), ["-o default", last]);
  },
});

Deno.test({
  name: "fish completes commands with their help, values behind =, names and files",
  ignore: !isThere("fish"),
  async fn() {
    const offered = async (line: string) =>
      (await printed("fish", "--no-config", "-c", `source ./script; complete -C '${line}'`)).trim()
        .split("\n");
    deepStrictEqual(await offered("gretun st"), ["status\tshow: all", "stun\task"]);
    deepStrictEqual(await offered("gretun up --port-mapping=of"), ["--port-mapping=off"]);
    deepStrictEqual(await offered("gretun ping "), ["alice", "bob"]);
    match((await offered("gretun up --ca cert")).join(), /^certificate\.pem/);
  },
});

Deno.test({
  name: "zsh completes, on a terminal, commands with their help, values behind =, names and files",
  ignore: !isThere("zsh"),
  async fn() {
    const lines = [
      "gretun st",
      "gretun up --port-mapping=of",
      "gretun ping a",
      "gretun up --ca cert",
    ];
    const shown = await printed(
      ...["zsh", "-f", "-c"],
      `zmodload zsh/zpty; zpty shell zsh -f -i
      zpty -w shell '. ./script; . ./zsh_key'
      for line in ${lines.map((line) => `'${line}'`).join(" ")}; do
        zpty -w -n shell "$line"$'\\t\\C-x'
        while zpty -r shell part; do
          print -rn -- $part; [[ $part == *'<'*'>'* ]] && break
        done
      done; zpty -d shell`,
    );
    match(shown, /status *-- show: all\s+stun *-- ask/);
    match(shown, /<gretun up --port-mapping=off *>/);
    match(shown, /<gretun ping alice *>/);
    match(shown, /<gretun up --ca certificate\.pem *>/);
  },
});
