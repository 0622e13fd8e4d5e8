/** GRE in user space, as the kernel plane speaks it: links are known by their remotes and keys. */
import { overheadBytes } from "../../links/mod.ts";
import type { LinkKeys } from "../kinds.ts";
import type { DataCodec, WantedLink } from "../plane.ts";
import { remoteTaken } from "../remote_taken.ts";

export class GreCodec implements DataCodec {
  readonly encapsulation = "gre";
  /** By what an arriving packet shows. */
  readonly #ids = new Map<string, string>();
  /** The other way round. */
  readonly #keys = new Map<string, string>();

  overheadBytes({ keys }: { keys?: LinkKeys }): number {
    return overheadBytes({ kind: "gre", encap: "fou", key: keys !== undefined });
  }

  setLink({ id, remote: { ip }, keys }: WantedLink): void {
    const key = keys ? `${ip} ${keys.ikey}` : ip;
    const owner = this.#ids.get(key);
    if (owner !== undefined && owner !== id) throw remoteTaken(ip);
    this.removeLink(id);
    this.#ids.set(key, id);
    this.#keys.set(id, key);
  }

  removeLink(id: string): void {
    const key = this.#keys.get(id);
    if (key !== undefined) this.#ids.delete(key);
    this.#keys.delete(id);
  }
}
