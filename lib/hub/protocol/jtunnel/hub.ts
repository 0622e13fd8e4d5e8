/** jtunnel's protocol on the hub: whoever knows a client's identifier is that client. */
import type { Endpoint } from "../../../addr.ts";
import { type DataPlane, openPlane, type PlaneOptions } from "../../../dataplane/mod.ts";
import { GretunError } from "../../../errors.ts";
import { endpointOf, equalSockAddrs, type SockAddr } from "../../../linux/mod.ts";
import type { HubCore, HubEntry, HubProtocol } from "../../hub_core.ts";
import { JtunnelCodec } from "./codec.ts";
import { type JtunnelId, parseJtunnelId } from "./wire.ts";

/** Between tries to make a link that the kernel refused. */
const RETRY_MS = 1_000;
/** Strangers whose files may come to light when the directory is looked at. */
const MAX_STRANGERS = 256;

interface ClientState {
  entry: HubEntry;
  at: SockAddr | undefined;
  triedMs: number;
}

export class JtunnelHub implements HubProtocol {
  readonly plane: DataPlane;
  readonly #core: HubCore;
  readonly #byId = new Map<JtunnelId, ClientState>();
  /** Where they were last, until the directory was looked at. */
  readonly #strangers = new Map<JtunnelId, SockAddr>();
  readonly takesAnySource = true;

  constructor(core: HubCore, options: PlaneOptions) {
    this.#core = core;
    const { dataPlane, serverId, allowFragments } = core.options;
    if (dataPlane !== "tun" && dataPlane !== "auto") {
      throw new GretunError("jtunnel's protocol has no kernel plane", "Use --data-plane tun");
    }
    const codec = new JtunnelCodec(serverId!, {
      onPacket: (id, source) => this.#packet(id, source),
      onRefused: (reason) => core.refused(reason),
      onCarried: (name) => core.carried(name),
      farId: parseJtunnelId,
    });
    this.plane = openPlane(
      { wanted: "tun", codec: () => codec },
      { ...options, allowFragments },
      core.edges,
    );
    core.edges.log.warn(
      "jtunnel's protocol: whoever hears an identifier once can be that client; data is not protected",
    );
  }

  admit(entry: HubEntry): string | undefined {
    const id = parseJtunnelId(entry.file.name);
    if (id === undefined) return "its name is not 16 hex digits";
    if (entry.file.publicKey || entry.file.token) {
      return "has a key, which jtunnel's protocol cannot check: it is not let in without";
    }
    if (this.#byId.has(id)) return "the same identifier is there in another case";
    this.#byId.set(id, { entry, at: undefined, triedMs: -Infinity });
    return undefined;
  }

  forget(entry: HubEntry): void {
    this.disconnected(entry);
    this.#byId.delete(entry.file.name.toLowerCase());
  }

  disconnected(entry: HubEntry): void {
    const state = this.#byId.get(entry.file.name.toLowerCase());
    if (state) state.at = undefined;
  }

  clientId(name: string): string {
    return name.toLowerCase();
  }

  /** Its next sign of life may be long in coming. */
  #stranger(id: JtunnelId, source: SockAddr): void {
    this.#core.refused("unknown-client");
    if (this.#strangers.size < MAX_STRANGERS) this.#strangers.set(id, source.slice());
    this.#core.lookAgain();
  }

  looked(): void {
    const strangers = [...this.#strangers];
    this.#strangers.clear();
    for (const [id, source] of strangers) if (this.#byId.has(id)) this.#packet(id, source);
  }

  /** The name of the client whose link takes the packet. */
  #packet(id: JtunnelId, source: SockAddr): string | undefined {
    const state = this.#byId.get(id);
    if (!state) {
      this.#stranger(id, source);
      return undefined;
    }
    if (state.at && equalSockAddrs(state.at, source)) this.#core.heard(state.entry);
    else if (!this.#move(state, source, endpointOf(source))) return undefined;
    return state.entry.file.name;
  }

  #move(state: ClientState, source: SockAddr, from: Endpoint): boolean {
    const { entry } = state;
    const nowMs = this.#core.edges.clock.nowMs();
    if (!entry.link && nowMs - state.triedMs < RETRY_MS) return false;
    state.triedMs = nowMs;
    if (entry.file.remote && entry.file.remote.ip !== from.ip) {
      this.#core.refused("wrong-address");
      return false;
    }
    if (!this.#core.authenticated(entry, from)) return false;
    state.at = source.slice();
    return true;
  }
}
