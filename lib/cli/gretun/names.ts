/** Names of tunnels and peers that are there now, for who is typing one. */
import { askDaemon } from "../../daemon/control.ts";
import { listTunnels, openHost } from "../../tunnel/mod.ts";
import type { Place } from "../completion/mod.ts";
import { socketToAsk } from "./state_dir.ts";

/** Commands whose NAME is that of a tunnel. */
const OF_TUNNELS = ["status", "delete", "health"];

/** None where nobody can be asked: a shell shows no errors while somebody types. */
export async function namesNow(place: Place): Promise<string[]> {
  const { command, flag, stands } = place;
  if (stands === "PEER") return await peers(place);
  if (stands !== "NAME" || !OF_TUNNELS.includes(command) || flag === "instance") return [];
  const isBoth = command === "status" && flag === undefined;
  return [...tunnels(), ...(isBoth ? await peers(place) : [])];
}

function tunnels(): string[] {
  try {
    using host = openHost();
    return listTunnels(host).map(({ name }) => name);
  } catch {
    return [];
  }
}

async function peers({ given }: Place): Promise<string[]> {
  const daemon = { "state-dir": given("state-dir"), instance: given("instance") };
  try {
    const { peers } = await askDaemon(await socketToAsk(daemon));
    // Nothing that a shell would take for more than a word.
    return peers.map(({ name }) => name).filter((name) => /^[\w.-]+$/.test(name));
  } catch {
    return [];
  }
}
