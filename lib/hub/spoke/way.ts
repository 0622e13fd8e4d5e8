/** Where the hub is and how packets get there: its name and the routes may change. */
import { type Endpoint, formatEndpoint, type Ip } from "../../addr.ts";
import { errorText, GretunError } from "../../errors.ts";
import { NetlinkError, type RtNetlink } from "../../netlink.ts";
import { Trouble } from "../../trouble.ts";
import type { SpokeEdges, SpokeOptions } from "./spoke_core.ts";

const LOOK_UP_GAP_MS = 10_000;
const RESOLVE_RETRY_MS = 5_000;

/** A host that starts before its network is up waits for it; undefined when it was told to stop. */
export async function firstLookUp(
  { hub }: SpokeOptions,
  { resolve, clock, log }: SpokeEdges,
  signal: AbortSignal,
): Promise<Endpoint | undefined> {
  let trouble: Trouble | undefined;
  while (!signal.aborted) {
    try {
      const [ip] = await resolve(hub.host);
      return { ip, port: hub.port };
    } catch (error) {
      if (signal.aborted) return undefined;
      if (!(error instanceof GretunError)) throw error;
      trouble ??= new Trouble(clock);
      if (trouble.news()) {
        log.warn("hub's name not resolved, trying again", {
          ...{ host: hub.host, error: errorText(error), hint: error.hint },
        });
      }
      await clock.sleep(RESOLVE_RETRY_MS, signal).catch(() => {});
    }
  }
  return undefined;
}

export class WayToHub {
  /** Where the hub is. */
  hub: Endpoint;
  readonly #host: string;
  readonly #rtnl: RtNetlink;
  readonly #edges: SpokeEdges;
  /** What packets leave with; empty while there is no way. */
  #way: string;
  #lookedUpMs = -Infinity;
  /** Of its name, in the order to try them. */
  #ips: readonly Ip[] = [];

  constructor(host: string, hub: Endpoint, rtnl: RtNetlink, edges: SpokeEdges) {
    this.hub = hub;
    this.#host = host;
    this.#rtnl = rtnl;
    this.#edges = edges;
    this.#way = this.#look();
  }

  get isThere(): boolean {
    return this.#way !== "";
  }

  /** Whether packets leave otherwise than they did, and do leave. */
  hasChanged(): boolean {
    const way = this.#look();
    if (way === this.#way) return false;
    this.#way = way;
    if (way === "") return false;
    this.#edges.log.info("way to the hub changed", { way });
    return true;
  }

  #look(): string {
    try {
      const { source, gateway, device } = this.#rtnl.routeTo(this.hub.ip);
      return `${source ?? "-"} by ${gateway ?? "-"} on ${device ?? "-"}`;
    } catch (error) {
      if (error instanceof NetlinkError) return "";
      throw error;
    }
  }

  /**
   * Whether the hub is to be tried elsewhere: its name has another address by now, or more than one
   * and the hub does not answer at this one.
   */
  async hasMoved(isSilent: boolean): Promise<boolean> {
    if (this.#host === this.hub.ip) return false;
    await this.#resolve();
    const ip = this.#nextIp(isSilent);
    if (ip === this.hub.ip) return false;
    this.hub = { ip, port: this.hub.port };
    this.#way = this.#look();
    const what = isSilent ? "hub does not answer, trying its other address" : "hub has moved";
    this.#edges.log.info(what, { hub: formatEndpoint(this.hub) });
    return true;
  }

  #nextIp(isSilent: boolean): Ip {
    const known = this.#ips.indexOf(this.hub.ip);
    if (known < 0) return this.#ips[0] ?? this.hub.ip;
    return isSilent ? this.#ips[(known + 1) % this.#ips.length]! : this.hub.ip;
  }

  async #resolve(): Promise<void> {
    const { clock, log, resolve } = this.#edges;
    if (clock.nowMs() - this.#lookedUpMs < LOOK_UP_GAP_MS) return;
    this.#lookedUpMs = clock.nowMs();
    try {
      this.#ips = await resolve(this.#host);
    } catch (error) {
      log.debug("hub's name not resolved", { error: errorText(error) });
    }
  }
}
