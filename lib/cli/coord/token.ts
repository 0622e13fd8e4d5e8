/** `gretun-coord token`: what lets nodes join a running coordinator. */
import { formatTable } from "../table.ts";
import { action, actionsCommand } from "./actions.ts";
import { ask, ASK_FLAGS, type Json } from "./ask.ts";
import { flag } from "../flags.ts";

const MIN_LIFE_MS = 1_000;

export const command = actionsCommand("token", "create, list and revoke tokens to join with", {
  create: action({
    words: "",
    summary: "a new token, shown once",
    flags: {
      reusable: flag.on("more than one node may join by it"),
      expires: flag.duration("TIME", "for how long it is good, as in 24h (default for ever)", {
        min: MIN_LIFE_MS,
      }),
      ephemeral: flag.on("forget nodes that join by it when they go"),
      tag: flag.list("TAG", "tag of nodes that join by it, repeatable"),
      approve: flag.on("nodes that join by it need no approval"),
      ...ASK_FLAGS,
    },
    run: async (_words, flags) => {
      const token = await ask(flags, "/v1/tokens/create", {
        ...(flags.expires === undefined ? {} : { life_ms: flags.expires }),
        ...(flags.reusable ? { reusable: true } : {}),
        ...(flags.ephemeral ? { ephemeral: true } : {}),
        ...(flags.approve ? { approve: true } : {}),
        tags: flags.tag,
      });
      return { json: token, text: `${token.token}\n` };
    },
  }),
  list: action({
    words: "",
    summary: "all tokens, without their secrets",
    flags: ASK_FLAGS,
    run: async (_words, flags) => {
      const { tokens } = await ask(flags, "/v1/tokens");
      const rows = (tokens as Json[]).map(row);
      const text = rows.length === 0 ? "No tokens: anybody may join.\n" : table(rows);
      return { json: tokens, text };
    },
  }),
  revoke: action({
    words: "ID",
    summary: "no more nodes join by it; those that did stay",
    flags: ASK_FLAGS,
    run: async ([id], flags) => {
      const token = await ask(flags, "/v1/tokens/revoke", { id });
      return { json: token, text: table([row(token)]) };
    },
  }),
});

const table = (rows: string[][]) => formatTable(["ID", "STATE", "USES", "KIND", "TAGS"], rows);

function row(token: Json): string[] {
  const kinds = ["ephemeral", "approve"].filter((kind) => token[kind] === true);
  return [
    String(token.id),
    state(token),
    String(token.uses),
    [token.reusable === true ? "reusable" : "once", ...kinds].join(","),
    (token.tags as string[]).join(",") || "-",
  ];
}

function state(token: Json): string {
  if (token.revoked) return "revoked";
  if (typeof token.expires_ms !== "number") return "good";
  const until = new Date(token.expires_ms).toISOString();
  return token.expires_ms <= Date.now() ? "expired" : `good until ${until}`;
}
