/** GRE in user space, as the kernel plane speaks it: links are known by their remote and key. */
import type { Ip } from "../../addr.ts";
import { endpointOf, equalSockAddrs, type SockAddr } from "../../linux/mod.ts";
import { overheadBytes } from "../../links/mod.ts";
import { decodeGre, encodeGre } from "../gre.ts";
import type { DataCodec, LinkKeys, WantedLink } from "../plane.ts";
import { remoteTaken } from "../remote_taken.ts";

export class GreCodec implements DataCodec {
  readonly encapsulation = "gre";
  readonly #links = new Map<string, WantedLink>();
  /** By what an arriving packet shows. */
  readonly #ids = new Map<string, string>();
  /** Packets come in runs. */
  #lastSource: SockAddr = new Uint8Array();
  #lastIp = "" as Ip;

  overheadBytes({ keys }: { keys?: LinkKeys }): number {
    return overheadBytes({ kind: "gre", encap: "fou", key: keys !== undefined });
  }

  setLink(link: WantedLink): void {
    const key = keyOf(link.remote.ip, link.keys?.ikey);
    const owner = this.#ids.get(key);
    if (owner !== undefined && owner !== link.id) throw remoteTaken(link.remote.ip);
    this.removeLink(link.id);
    this.#links.set(link.id, link);
    this.#ids.set(key, link.id);
  }

  removeLink(id: string): void {
    const link = this.#links.get(id);
    if (!link) return;
    this.#links.delete(id);
    this.#ids.delete(keyOf(link.remote.ip, link.keys?.ikey));
  }

  encode(id: string, inner: Uint8Array): Uint8Array | undefined {
    return encodeGre(inner, this.#links.get(id)?.keys?.okey);
  }

  /** As the kernel does: the remote's address and the key must fit, its port need not. */
  decode(bytes: Uint8Array, source: SockAddr) {
    const packet = decodeGre(bytes);
    const id = packet && this.#ids.get(keyOf(this.#ipOf(source), packet.key));
    return id === undefined ? undefined : { id, inner: packet!.inner };
  }

  #ipOf(source: SockAddr): Ip {
    if (!equalSockAddrs(source, this.#lastSource)) {
      this.#lastSource = source.slice();
      this.#lastIp = endpointOf(source).ip;
    }
    return this.#lastIp;
  }
}

function keyOf(ip: Ip, ikey: number | undefined): string {
  return ikey === undefined ? ip : `${ip} ${ikey}`;
}
