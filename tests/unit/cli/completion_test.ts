/** What completion offers, by the help texts of the real commands. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import type { Command } from "../../../lib/cli/command.ts";
import { completionCommand, type Place } from "../../../lib/cli/completion/mod.ts";
import { command as delete_ } from "../../../lib/cli/gretun/delete.ts";
import { command as create } from "../../../lib/cli/gretun/create.ts";
import { command as hub } from "../../../lib/cli/gretun/hub.ts";
import { command as peers } from "../../../lib/cli/gretun/peers.ts";
import { command as ping } from "../../../lib/cli/gretun/ping.ts";
import { command as status } from "../../../lib/cli/gretun/status.ts";
import { command as up } from "../../../lib/cli/gretun/up.ts";
import { command as node } from "../../../lib/cli/coord/node.ts";
import { command as policy } from "../../../lib/cli/coord/policy.ts";
import { command as serve } from "../../../lib/cli/coord/serve.ts";
import { command as token } from "../../../lib/cli/coord/token.ts";
import { UsageError } from "../../../lib/errors.ts";

const names = ({ command, flag, stands, given }: Place) => {
  const at = given("instance") ?? "here";
  if (!["PEER", "NAME", "NODE", "ID", "TAG"].includes(stands)) return Promise.resolve([]);
  return Promise.resolve([`${command}.${flag ?? "word"}.${stands}.${at}`]);
};

function program(name: string, commands: Record<string, Command>, defaultCommand?: string) {
  const loads = Object.entries(commands).map(([name, command]) =>
    [name, () => Promise.resolve({ command })] as const
  );
  return completionCommand({
    ...{ name, commands: Object.fromEntries(loads), names },
    ...(defaultCommand === undefined ? {} : { defaultCommand }),
  });
}

const GRETUN = program("gretun", { up, peers, ping, status, delete: delete_, create, hub });
const COORD = program("gretun-coord", { serve, node, token, policy }, "serve");

async function said(command: Command, ...args: string[]): Promise<string> {
  let text = "";
  const io = {
    stdout: (part: string) => void (text += part),
    stderr: () => {},
    signal: new AbortController().signal,
  };
  strictEqual(await command.run(args, io), 0);
  return text;
}

/** For a line whose words have a blank between; the last one is being typed. */
async function offered(line: string, command = GRETUN): Promise<string[]> {
  const text = await said(command, "words", "--", ...line.split(" "));
  return text.split("\n").filter((line) => line !== "").map((line) => line.split("\t")[0]!);
}

Deno.test("commands come first, then a command's words, flags and values", async () => {
  const all = ["up", "peers", "ping", "status", "delete", "create", "hub"];
  for (
    const [line, expected] of Object.entries({
      "": all,
      "p": ["peers", "ping"],
      "help st": ["status"],
      "help up ": [],
      "nothing ": [],
      "up --data-plane ": ["auto", "fou", "tun"],
      "up --data-plane=f": ["--data-plane=fou"],
      "up --data-plane = f": ["--data-plane=fou"],
      "up --data-plane =": ["--data-plane=auto", "--data-plane=fou", "--data-plane=tun"],
      "up --port ": [],
      "up --token-file ": [":files"],
      "up --verb": ["--verbose"],
      "ping ": ["ping.word.PEER.here"],
      "ping --instance two ": ["ping.word.PEER.two"],
      "ping --instance=two --peer ": ["ping.peer.PEER.two"],
      "ping x": [],
      "peers --accept ": ["peers.accept.PEER.here"],
      "status ": ["status.word.NAME.here"],
      "status --name ": ["status.name.NAME.here"],
      "delete a b ": ["delete.word.NAME.here"],
      "delete --force ": ["delete.word.NAME.here"],
      "hub ": ["status", "keygen"],
      "hub keygen --o": ["--out"],
      "hub keygen --out ": [":files"],
      "hub -- ": [":files"],
      "hub --enc": ["--encap-csum", "--encrypt"],
    })
  ) deepStrictEqual(await offered(line), expected, line);
});

Deno.test("what is typed already takes its place: then flags are left", async () => {
  ok((await offered("ping alice ")).includes("--count"));
  ok(!(await offered("ping alice ")).some((word) => word.includes("PEER")));
  ok((await offered("ping alice -c ")).length === 0, "-c takes a number");
  ok((await offered("create site ")).includes("--remote"));
});

Deno.test("the coordinator's actions have words and flags of their own", async () => {
  for (
    const [line, expected] of Object.entries({
      "node ap": ["approve"],
      "node approve ": ["node.word.NODE.here"],
      "node rename nas ": ["node.word.NAME.here"],
      "node tag nas a ": ["node.word.TAG.here"],
      "token create --e": ["--expires", "--ephemeral"],
      "token revoke ": ["token.word.ID.here"],
      "token list --e": [],
      "policy check ": [":files"],
      "--relay-mode ": ["auto", "kernel", "user"],
      "serve --log-f": ["--log-format"],
      "--log-f": ["--log-format"],
    })
  ) deepStrictEqual(await offered(line, COORD), expected, line);
});

Deno.test("flags are offered with their help", async () => {
  match(await said(GRETUN, "words", "--", "peers", "--js"), /^--json\tJSON on standard output\n$/);
});

Deno.test("completion refuses other shells", async () => {
  for (const args of [[], ["tcsh"], ["bash", "zsh"], ["--json"]]) {
    await rejects(said(GRETUN, ...args), UsageError, args.join());
  }
});
