/** gretun-coord: picks a command, turns an error into one line and an exit code. */
import { type Command, errorLine, EXIT_OK, exitCode } from "../command.ts";
import denoJson from "../../../deno.json" with { type: "json" };

/** A command's body is loaded when it is chosen. */
const COMMANDS: Record<string, () => Promise<{ command: Command }>> = {
  serve: () => import("./serve.ts"),
  status: () => import("./status.ts"),
  node: () => import("./node.ts"),
  token: () => import("./token.ts"),
};
/** What flags without a command are for. */
const DEFAULT = "serve";

/** The exit code. */
export async function main(words: string[]): Promise<number> {
  const [first, ...rest] = words;
  if (first === "version" || words.includes("--version") || words.includes("-version")) {
    writeAll(Deno.stdout, `gretun-coord ${denoJson.version}\n`);
    return EXIT_OK;
  }
  const isNamed = first !== undefined && Object.hasOwn(COMMANDS, first);
  const isHelp = (word: string) => ["--help", "-help", "-h"].includes(word);
  if (!isNamed && (first === "help" || words.some(isHelp))) {
    writeAll(Deno.stdout, await overview());
    return EXIT_OK;
  }
  const { command } = await COMMANDS[isNamed ? first : DEFAULT]!();
  if (rest.some(isHelp)) {
    writeAll(Deno.stdout, command.help());
    return EXIT_OK;
  }
  const io = {
    stdout: (text: string) => writeAll(Deno.stdout, text),
    stderr: tell,
    signal: stopSignal(),
  };
  try {
    return await command.run(isNamed ? rest : words, io);
  } catch (error) {
    tell(errorLine(error) + "\n");
    return exitCode(error);
  }
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

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes));
}

/** A closed pipe or a full disk behind standard error is no reason to end a service. */
function tell(text: string): void {
  try {
    writeAll(Deno.stderr, text);
  } catch {
    // There is nobody to tell.
  }
}

function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(name, () => controller.abort());
  }
  return controller.signal;
}
