/** GRE keys tell clients behind one address apart; both ends make them of what they share. */
import { greKeyFrom } from "../../../gre_key.ts";
import type { Pair } from "./auth.ts";
import { deriveKey } from "./crypto.ts";
import { sha256 } from "./digest.ts";

export interface GreKeys {
  fromClient: number;
  fromHub: number;
}

/** Secret where the pair shares a secret, else made of the name alone. */
export async function greKeys(pair: Pair, name: string): Promise<GreKeys> {
  const ofName = await sha256(name);
  const key = (label: string) => greKeyFrom(pair.sharedKey(label) ?? deriveKey(ofName, label));
  return { fromClient: key("gre client"), fromHub: key("gre hub") };
}
