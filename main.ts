/** The gretun program: picks a command and runs it. */
import { type Command, EXIT_OK } from "./lib/cli/command.ts";
import { nearest } from "./lib/cli/nearest.ts";
import { type ProgramIo, runCommand, runProgram } from "./lib/cli/program.ts";
import { UsageError } from "./lib/errors.ts";

/** A command's body is loaded when it is chosen, so that the others start fast. */
const COMMANDS: Record<string, () => Promise<{ command: Command }>> = {
  up: () => import("./lib/cli/gretun/up.ts"),
  down: () => import("./lib/cli/gretun/down.ts"),
  ping: () => import("./lib/cli/gretun/ping.ts"),
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
    const { completionCommand } = await import("./lib/cli/completion/mod.ts");
    const { namesNow } = await import("./lib/cli/gretun/names.ts");
    return { command: completionCommand({ name: "gretun", commands: COMMANDS, names: namesNow }) };
  },
  man: async () => {
    const { manCommand } = await import("./lib/cli/man.ts");
    return { command: manCommand(MANUAL, helpTexts) };
  },
  version: async () => {
    const { versionCommand } = await import("./lib/cli/version.ts");
    return { command: versionCommand("gretun") };
  },
};

const MANUAL = {
  name: "gretun",
  summary: "connect Linux hosts behind NAT",
  files: {
    "/etc/gretun/up.conf": "settings of gretun up, one KEY VALUE a line",
    "/var/lib/gretun": "keys, of root and the service; else ~/.local/state/gretun",
    "/run/gretun": "the service's control socket",
  },
  seeAlso: ["gretun-coord"],
};

async function helpTexts(): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  for (const [name, load] of Object.entries(COMMANDS)) {
    texts.set(name, (await load()).command.help());
  }
  return texts;
}

async function overview(): Promise<string> {
  const lines = ["Usage: gretun COMMAND [flags]", "", "Commands:"];
  for (const [name, load] of Object.entries(COMMANDS)) {
    lines.push(`  ${name.padEnd(12)}${(await load()).command.summary}`);
  }
  return [...lines, "", "Run gretun help COMMAND for details."].join("\n") + "\n";
}

async function main([name, ...rest]: string[], io: ProgramIo): Promise<number> {
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    io.stdout(rest[0] === undefined ? await overview() : (await find(rest[0])).help());
    return EXIT_OK;
  }
  const isVersion = name === "version" || name === "--version";
  const command = await find(isVersion ? "version" : name);
  return await runCommand(command, rest, io, { isBrief: isVersion });
}

async function find(name: string): Promise<Command> {
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load) return (await load()).command;
  const meant = nearest(name, Object.keys(COMMANDS));
  throw new UsageError(
    `unknown command ${JSON.stringify(name)}`,
    meant ? `Did you mean gretun ${meant}?` : "Run gretun --help to see them all",
  );
}

// Not awaited: a script cannot, see compile.sh.
void runProgram((io) => main(Deno.args, io));
