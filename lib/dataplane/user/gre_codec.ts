/** GRE in user space, as the kernel plane speaks it: links are known by their remotes and keys. */
import { type Endpoint, type Ip, UNSPECIFIED_4 } from "../../addr.ts";
import { endpointOf, equalSockAddrs, type SockAddr } from "../../linux/mod.ts";
import { overheadBytes } from "../../links/mod.ts";
import { decodeGre, encodeGre } from "../gre.ts";
import type { LinkKeys } from "../kinds.ts";
import type { DataCodec, WantedLink } from "../plane.ts";
import { remoteTaken } from "../remote_taken.ts";

export class GreCodec implements DataCodec {
  readonly threads = { encapsulation: "gre" } as const;
  readonly #links = new Map<string, WantedLink>();
  /** By what an arriving packet shows. */
  readonly #ids = new Map<string, string>();
  /** Packets come in runs. */
  #lastSource: SockAddr = new Uint8Array();
  #lastRemote: Endpoint = { ip: UNSPECIFIED_4, port: 0 };

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

  decode(bytes: Uint8Array, source: SockAddr) {
    const packet = decodeGre(bytes);
    if (!packet) return "malformed";
    const { ip, port } = this.#remoteOf(source);
    const id = this.#ids.get(keyOf(ip, packet.key));
    // The kernel looks at the address alone; there, rules look at the port.
    if (id === undefined || this.#links.get(id)!.remote.port !== port) return "wrong-address";
    return { id, inner: packet.inner };
  }

  #remoteOf(source: SockAddr): Endpoint {
    if (!equalSockAddrs(source, this.#lastSource)) {
      this.#lastSource = source.slice();
      this.#lastRemote = endpointOf(source);
    }
    return this.#lastRemote;
  }
}

function keyOf(ip: Ip, ikey: number | undefined): string {
  return ikey === undefined ? ip : `${ip} ${ikey}`;
}
