/** The gretun program: pick a command, turn an error into one line and an exit code. */
import {
  type Command,
  errorLine,
  EXIT_FAILURE,
  EXIT_OK,
  EXIT_USAGE,
  exitCode,
} from "./lib/cli/command.ts";
import denoJson from "./deno.json" with { type: "json" };

/** A command's body is loaded when it is chosen, so that the others start fast. */
const COMMANDS: Record<string, () => Promise<{ command: Command }>> = {
  up: () => import("./lib/cli/gretun/up.ts"),
  down: () => import("./lib/cli/gretun/down.ts"),
  wait: () => import("./lib/cli/gretun/wait.ts"),
  peers: () => import("./lib/cli/gretun/peers.ts"),
  install: () => import("./lib/cli/gretun/install.ts"),
  uninstall: () => import("./lib/cli/gretun/uninstall.ts"),
  demo: () => import("./lib/cli/gretun/demo.ts"),
  stun: () => import("./lib/cli/gretun/stun.ts"),
  netcheck: () => import("./lib/cli/gretun/netcheck.ts"),
  create: () => import("./lib/cli/gretun/create.ts"),
  list: () => import("./lib/cli/gretun/list.ts"),
  status: () => import("./lib/cli/gretun/status.ts"),
  delete: () => import("./lib/cli/gretun/delete.ts"),
  probe: () => import("./lib/cli/gretun/probe.ts"),
  health: () => import("./lib/cli/gretun/health.ts"),
  hub: () => import("./lib/cli/gretun/hub.ts"),
  spoke: () => import("./lib/cli/gretun/spoke.ts"),
  completion: async () => {
    const { completionCommand } = await import("./lib/cli/gretun/completion.ts");
    return { command: completionCommand(helpTexts) };
  },
};

async function helpTexts(): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  for (const [name, load] of Object.entries(COMMANDS)) {
    texts.set(name, (await load()).command.help());
  }
  return texts;
}

function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes));
}

/** Whoever read the output has enough of it, as in "gretun list | head -1": no words for that. */
class OutputClosedError extends Error {}

function writeOutput(text: string): void {
  try {
    write(Deno.stdout, text);
  } catch (error) {
    throw error instanceof Deno.errors.BrokenPipe ? new OutputClosedError() : error;
  }
}

async function overview(): Promise<string> {
  const lines = ["Usage: gretun COMMAND [flags]", "", "Commands:"];
  for (const [name, load] of Object.entries(COMMANDS)) {
    lines.push(`  ${name.padEnd(12)}${(await load()).command.summary}`);
  }
  return [...lines, "  version     print the version", "", "gretun COMMAND --help tells more."]
    .join("\n") + "\n";
}

function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(name, () => controller.abort(new Error(name)));
  }
  return controller.signal;
}

async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  const stdout = writeOutput;
  const stderr = (text: string) => write(Deno.stderr, text);
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    stdout(await overview());
    return EXIT_OK;
  }
  if (name === "version" || name === "--version") {
    stdout(`gretun ${denoJson.version}\n`);
    return EXIT_OK;
  }
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!load) {
    stderr(`Error: unknown command ${JSON.stringify(name)}. Run gretun --help to see them all.\n`);
    return EXIT_USAGE;
  }
  const { command } = await load();
  if (rest.includes("--help") || rest.includes("-h")) {
    stdout(command.help());
    return EXIT_OK;
  }
  try {
    return await command.run(rest, { stdout, stderr, signal: stopSignal() });
  } catch (error) {
    if (error instanceof OutputClosedError) return EXIT_FAILURE;
    stderr(errorLine(error) + "\n");
    return exitCode(error);
  }
}

Deno.exit(await main(Deno.args));
