/** Names of nodes and tokens that are there now, for who is typing one. */
import type { Place } from "../completion/mod.ts";
import { ask, type Json } from "./ask.ts";

/** None where nobody can be asked: a shell shows no errors while somebody types. */
export async function namesNow({ stands, given }: Place): Promise<string[]> {
  const coordinator = { state: given("state") };
  try {
    if (stands === "NODE") {
      const { nodes } = await ask(coordinator, "/v1/nodes");
      // Nothing that a shell would take for more than a word.
      return (nodes as Json[]).map((node) => String(node.given_name ?? node.node_name))
        .filter((name) => /^[\w.-]+$/.test(name));
    }
    if (stands !== "ID") return [];
    const { tokens } = await ask(coordinator, "/v1/tokens");
    return (tokens as Json[]).filter(({ revoked }) => !revoked).map(({ id }) => String(id));
  } catch {
    return [];
  }
}
