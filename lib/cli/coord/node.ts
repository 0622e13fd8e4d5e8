/** `gretun-coord node`: the nodes that a running coordinator knows, and what it is told of them. */
import { formatTable } from "../table.ts";
import { action, actionsCommand, type Answer } from "./actions.ts";
import { ask, ASK_FLAGS, type Json } from "./ask.ts";

const HEADINGS = ["NAME", "TUNNEL IP", "STATE", "LAST SEEN", "TAGS", "KEY"];

export const command = actionsCommand("node", "list nodes, approve, expire, rename, tag, delete", {
  list: action({
    words: "",
    summary: "all nodes that are known",
    flags: ASK_FLAGS,
    run: async (_words, flags) => {
      const { nodes } = await ask(flags, "/v1/nodes");
      const rows = (nodes as Json[]).map(row);
      const table = rows.length === 0 ? "No nodes.\n" : formatTable(HEADINGS, rows);
      return { json: nodes, text: table + (nodes as Json[]).flatMap(collisions).join("") };
    },
  }),
  approve: told("NODE", "let a node in that waits", (node) => ["approve", { node }]),
  expire: told("NODE", "end a node's membership", (node) => ["expire", { node }]),
  rename: told(
    "NODE NAME",
    "give a node another name than it says",
    (node, name) => ["rename", { node, name }],
  ),
  tag: told("NODE TAG...", "set a node's tags", (node, ...tags) => ["tag", { node, tags }]),
  delete: told("NODE", "forget a node and its address", (node) => ["delete", { node }]),
});

function told(
  words: string,
  summary: string,
  call: (...words: string[]) => [verb: string, body: Json],
) {
  return action({
    words,
    summary,
    flags: ASK_FLAGS,
    run: async (given, flags): Promise<Answer> => {
      const [verb, body] = call(...given);
      const node = await ask(flags, `/v1/nodes/${verb}`, body);
      return { json: node, text: formatTable(HEADINGS, [row(node)]) };
    },
  });
}

function row(node: Json): string[] {
  const tags = node.tags as string[] | undefined;
  return [
    String(node.given_name ?? node.node_name),
    String(node.tunnel_ip),
    state(node),
    typeof node.seen_ms === "number" ? new Date(node.seen_ms).toISOString() : "-",
    tags?.join(",") || "-",
    String(node.node_pubkey),
  ];
}

function collisions(node: Json): string[] {
  const all = node.collisions as string[] | undefined;
  return (all ?? []).map((text) => `${node.given_name ?? node.node_name}: ${text}\n`);
}

function state(node: Json): string {
  if (node.waiting) return "waits for approval";
  if (typeof node.expires_ms === "number" && node.expires_ms <= Date.now()) return "expired";
  const version = node.statement ? "" : ", v1";
  return (node.listed ? "there" : "away") + version;
}
