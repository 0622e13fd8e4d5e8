/** `gretun-coord status`: what a running coordinator says of itself. */
import { type Command, EXIT_OK } from "../command.ts";
import { flagsHelp, parseFlags } from "../flags.ts";
import { ask, ASK_FLAGS, type Json } from "./ask.ts";
import { describePolicy } from "./policy.ts";

export const command: Command = {
  summary: "what the running coordinator says of itself",
  help: () => `Usage: gretun-coord status [flags]\n\n${flagsHelp(ASK_FLAGS)}\n`,
  async run(args, io) {
    const flags = parseFlags(args, ASK_FLAGS);
    const status = await ask(flags, "/v1/status");
    io.stdout(flags.json ? JSON.stringify(status, null, 2) + "\n" : describe(status));
    return EXIT_OK;
  },
};

function describe(status: Json): string {
  const { listed, waiting, known, capacity } = status.nodes as Record<string, number>;
  const lines = [
    ["version", status.version],
    ["key", status.key],
    ["listening", status.listening],
    ["pool", status.pool],
    ["nodes", `${listed} there, ${known} known, ${waiting} waiting, room for ${capacity}`],
    ["policy", status.policy ? describePolicy(status.policy as Json) : "none: all reach all"],
    ["joining", status.open ? "open: anybody may join" : "with a token only"],
    ["connections", status.connections],
  ];
  const clones = (status.clones as { node: string; sources: string[] }[]).map((
    { node, sources },
  ) => ["clones", `${node} is used from ${sources.join(" and ")}`]);
  const collisions = (status.collisions as { node: string; text: string }[]).map((
    { node, text },
  ) => ["collisions", `${node}: ${text}`]);
  return [...lines, ...clones, ...collisions].map(([name, value]) =>
    `${String(name).padEnd(13)}${value}\n`
  )
    .join("");
}
