/** gretun-coord: picks a command and runs it. */
import { UsageError } from "../../errors.ts";
import { type Command, EXIT_OK } from "../command.ts";
import type { ProgramIo } from "../program.ts";

/** A command's body is loaded when it is chosen. */
const COMMANDS: Record<string, () => Promise<{ command: Command }>> = {
  serve: () => import("./serve.ts"),
  status: () => import("./status.ts"),
  node: () => import("./node.ts"),
  token: () => import("./token.ts"),
  policy: () => import("./policy.ts"),
  install: () => import("./install.ts"),
  uninstall: () => import("./uninstall.ts"),
  completion: async () => {
    const { completionCommand } = await import("../completion/mod.ts");
    const { namesNow } = await import("./names.ts");
    const program = { name: "gretun-coord", defaultCommand: DEFAULT, commands: COMMANDS };
    return { command: completionCommand({ ...program, names: namesNow }) };
  },
  man: async () => {
    const { manCommand } = await import("../man.ts");
    return { command: manCommand(MANUAL, helpTexts) };
  },
};
const MANUAL = {
  name: "gretun-coord",
  summary: "coordinator of overlays, with a STUN server and a relay",
  files: {
    "/var/lib/gretun-coord/coord.db": "nodes and tokens; else in ~/.local/state/gretun-coord",
  },
  seeAlso: ["gretun"],
};

async function helpTexts(): Promise<Map<string, string>> {
  const texts = Object.entries(COMMANDS).map(async ([name, load]) =>
    [name, (await load()).command.help()] as const
  );
  return new Map(await Promise.all(texts));
}

/** What flags without a command are for. */
const DEFAULT = "serve";

/** The exit code. */
export async function main(words: string[], io: ProgramIo): Promise<number> {
  const [first, ...rest] = words;
  const end = words.indexOf("--"); // what follows is not for this program
  const own = end < 0 ? words : words.slice(0, end);
  if (first === "version" || own.includes("--version") || own.includes("-version")) {
    const { versionCommand } = await import("../version.ts");
    return await versionCommand("gretun-coord").run(first === "version" ? rest : [], io);
  }
  const isNamed = first !== undefined && Object.hasOwn(COMMANDS, first);
  const isHelp = (word: string) => ["--help", "-help", "-h"].includes(word);
  if (first === "help" && rest[0] !== undefined) return await main([...rest, "--help"], io);
  if (!isNamed && (first === "help" || own.some(isHelp))) {
    io.stdout(await overview());
    return EXIT_OK;
  }
  if (!isNamed && first !== undefined && !first.startsWith("-")) {
    const { nearest } = await import("../nearest.ts");
    const meant = nearest(first, Object.keys(COMMANDS));
    throw new UsageError(
      `unknown command ${JSON.stringify(first)}`,
      meant ? `Did you mean gretun-coord ${meant}?` : "Run gretun-coord --help to see them all",
    );
  }
  const { command } = await COMMANDS[isNamed ? first : DEFAULT]!();
  if (own.some(isHelp)) {
    io.stdout(command.help());
    return EXIT_OK;
  }
  await io.serve(command.ownSignals);
  return await command.run(isNamed ? rest : words, io);
}

/** Of the default command too, whose flags are those of the program. */
async function overview(): Promise<string> {
  const rows = Object.entries(COMMANDS).map(async ([name, load]) =>
    `  ${name.padEnd(12)}${(await load()).command.summary}`
  );
  const { command } = await COMMANDS[DEFAULT]!();
  return [
    ...["Usage: gretun-coord [COMMAND] [flags]", "", "Commands:"],
    ...await Promise.all(rows),
    "  version     print the version",
    "",
    `Without a command: ${DEFAULT}. gretun-coord COMMAND --help tells more.`,
    "",
    command.help(),
  ].join("\n");
}
