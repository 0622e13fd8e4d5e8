/** The links of a hub's clients, each with its program: set, moved, made again, removed. */
import {
  type Endpoint,
  equalEndpoints,
  familyOf,
  formatEndpoint,
  type Ip,
  parseCidr,
} from "../addr.ts";
import { Alarm } from "../alarm.ts";
import type { InnerLimits } from "../dataplane/mod.ts";
import { errorFields, errorText } from "../errors.ts";
import { pairOf } from "./addresses.ts";
import { allowedSources, type ClientFile } from "./clients.ts";
import type { HubEntry, HubOptions, HubProtocol } from "./hub_core.ts";
import { linkEnvironment } from "./programs/environment.ts";
import type { Programs } from "./programs/program.ts";
import type { World } from "./world.ts";

const CHANGE_SETTLE_MS = 200;
/** Looking at hundreds of links takes its time. */
const LOOK_GAP_MS = 2_000;
const ROAM_LOG_GAP_MS = 1_000;
/** What routing daemons and the kernel itself speak with on a link, besides the client's addresses. */
const LINK_SCOPE = ["fe80::/10", "::/128", "ff00::/8", "224.0.0.0/4"].map(parseCidr);

export interface ClientLinksParts {
  world: World;
  programs: Programs;
  protocol: HubProtocol;
  entries: ReadonlyMap<string, HubEntry>;
  /** As they are now. */
  options: () => HubOptions;
}

export class ClientLinks implements Disposable {
  readonly #parts: ClientLinksParts;
  readonly #settle: Alarm;
  #lookedMs = -Infinity;

  constructor(parts: ClientLinksParts) {
    this.#parts = parts;
    this.#settle = new Alarm(parts.world.clock, () => this.#restore());
  }

  /** False when the link could not be made or changed; then it is as before. */
  set(entry: HubEntry, endpoint: Endpoint, change: "new" | "moved" | "renewed"): boolean {
    const { world, programs, protocol } = this.#parts;
    const { name } = entry.file;
    const fields = { client: name, endpoint: formatEndpoint(endpoint) };
    if (change === "moved") this.#moved(entry, fields);
    try {
      const state = protocol.plane.setLink({
        ...{ id: name, remote: endpoint, routes: entry.file.routes },
        addresses: pairOf(this.addresses(entry.file)),
        ...protocol.linkExtras?.(entry),
        ...this.#limits(entry),
      });
      const isNew = !entry.link;
      entry.link = { ...state, ...this.addresses(entry.file) };
      if (!isNew) return true;
      world.log.info("client up", { ...fields, ifname: state.ifname, mtu: state.mtu });
      programs.up(name, this.#environment(entry));
      this.count();
      return true;
    } catch (error) {
      world.log.error("link not set", { ...fields, ...errorFields(error) });
      return false;
    }
  }

  #limits({ file }: HubEntry): InnerLimits {
    if (this.#parts.protocol.takesAnySource) return {};
    return { sources: [...allowedSources(file), ...LINK_SCOPE] };
  }

  #moved(entry: HubEntry, fields: { client: string; endpoint: string }): void {
    const { world: { clock, log } } = this.#parts;
    entry.roams++;
    this.#parts.options().metrics.roamed();
    if (clock.nowMs() - entry.roamLoggedMs < ROAM_LOG_GAP_MS) return;
    log.info("client moved", { ...fields, roams: entry.roams });
    entry.roamLoggedMs = clock.nowMs();
  }

  /** Clients that are at this endpoint, too: a NAT has given their mapping away. */
  othersAt(entry: HubEntry, endpoint: Endpoint): HubEntry[] {
    return [...this.#parts.entries.values()].filter((other) => {
      const at = other.policy.endpoint;
      return other !== entry && at !== undefined && equalEndpoints(at, endpoint);
    });
  }

  remove(entry: HubEntry, reason: string): void {
    const { world: { log }, protocol } = this.#parts;
    const { name } = entry.file;
    this.programDown(entry);
    protocol.disconnected?.(entry);
    try {
      protocol.plane.removeLink(name);
    } catch (error) {
      log.warn("link not removed", { client: name, error: errorText(error) });
    }
    delete entry.link;
    log.info("client down", { client: name, reason });
    this.count();
  }

  /** Links of a killed run: those of clients that are still authorised go on. */
  adopt(adopted: (entry: HubEntry, endpoint: Endpoint) => void): void {
    const { world: { log }, protocol: { plane }, entries, programs } = this.#parts;
    for (const { id: name, remote: endpoint, ifname, mtu } of plane.adopted()) {
      const entry = entries.get(name);
      if (!entry) {
        log.info("link of a client that is gone removed", { client: name, ifname });
        plane.removeLink(name);
        continue;
      }
      plane.confine(name, this.#limits(entry));
      log.info("link adopted", { client: name, ifname, endpoint: formatEndpoint(endpoint) });
      entry.link = { ifname, mtu, ...this.addresses(entry.file) };
      adopted(entry, endpoint);
      programs.up(name, this.#environment(entry));
    }
    this.count();
  }

  programDown(entry: HubEntry): void {
    if (entry.link) this.#parts.programs.down(entry.file.name, this.#environment(entry));
  }

  /** Somebody else may have removed links. */
  changed(): void {
    const sinceMs = this.#parts.world.clock.nowMs() - this.#lookedMs;
    this.#settle.within(Math.max(CHANGE_SETTLE_MS, LOOK_GAP_MS - sinceMs));
  }

  #restore(): void {
    const { world: { clock, log }, protocol, entries } = this.#parts;
    this.#lookedMs = clock.nowMs();
    protocol.plane.networkChanged();
    for (const name of protocol.plane.missingLinks()) {
      const entry = entries.get(name);
      if (!entry?.link || !entry.policy.endpoint) continue;
      log.warn("link is gone, making it again", { client: name });
      this.programDown(entry);
      delete entry.link;
      this.set(entry, entry.policy.endpoint, "new");
    }
  }

  count(): void {
    const { entries, options } = this.#parts;
    const up = [...entries.values()].filter(({ link }) => link).length;
    options().metrics.setClients(up, entries.size);
  }

  /** The hub's and the client's inner addresses. */
  addresses({ address, hubAddress }: ClientFile): { local?: Ip; peer?: Ip } {
    const local = hubAddress ?? this.#parts.options().address;
    if (!address || !local || familyOf(address.ip) !== familyOf(local)) return {};
    return { local, peer: address.ip };
  }

  #environment({ file, link, policy }: HubEntry): Record<string, string> {
    return linkEnvironment({
      ifname: link?.ifname ?? "",
      mtu: link?.mtu ?? 0,
      client: file.name,
      clientId: this.#parts.protocol.clientId(file.name),
      ...(link?.local ? { local: link.local } : {}),
      ...(link?.peer ? { peer: link.peer } : {}),
      ...(policy.endpoint ? { endpoint: policy.endpoint } : {}),
      routes: file.routes,
    });
  }

  [Symbol.dispose](): void {
    this.#settle[Symbol.dispose]();
  }
}
