/** Finds the services of a gateway that make mappings by UPnP. */
import type { Endpoint, Ip } from "../addr.ts";
import type { Datagram } from "../edges.ts";
import { firstToSucceed } from "../stagger.ts";
import { PortMapRefusedError } from "./errors.ts";
import { exchange, withDeadline } from "./exchange.ts";
import { askHttp } from "./http.ts";
import type { GatewayAccess, PortMapper } from "./protocol.ts";
import {
  decodeSearchAnswer,
  encodeSearch,
  IGD_TARGETS,
  ROOT_TARGET,
  SSDP_MULTICAST,
  SSDP_PORT,
} from "./ssdp.ts";
import { refusing, UpnpMapper, WanService } from "./upnp_mapper.ts";
import { decodeDescription } from "./upnp_xml.ts";

/** Devices take up to a second before they answer (MX). */
const SEARCH_PAUSES_MS: readonly number[] = [250, 500, 1250];
/** Of search, description and the external address together. */
const DISCOVERY_MS = 2500;
/** How long a service may take to tell its address before the next one is asked too. */
const SERVICE_DELAY_MS = 400;
/** Descriptions that are read of the gateway, and of all others: anybody may answer a search. */
const MAX_LOCATIONS = 4;
const MAX_REDIRECTIONS = 3;
const REDIRECTIONS: readonly number[] = [301, 302, 303, 307, 308];

/**
 * See `Discover`. All answers are followed at once, for there may be several devices, or one that
 * announces a description which is not there.
 */
export async function discoverUpnp(
  access: GatewayAccess,
  signal: AbortSignal,
): Promise<PortMapper | undefined> {
  return await withDeadline(access.clock, DISCOVERY_MS, signal, async (signal) => {
    const finding = new Finding(access, signal);
    const read = (datagram: Datagram): undefined => {
      const { location, isGateway } = decodeSearchAnswer(datagram.bytes);
      const isOwn = datagram.from.ip === access.gateway;
      // A gateway may answer from another of its addresses; it then says that it is one.
      if (isGateway || isOwn) finding.follow(location, isOwn);
    };
    await search(access, read, finding.signal).catch(() => signal.throwIfAborted());
    return await finding.result();
  });
}

/** Asks all devices, and the gateway by itself: its answer to that passes this host's firewall. */
function search(
  access: GatewayAccess,
  read: (datagram: Datagram) => undefined,
  signal: AbortSignal,
): Promise<undefined> {
  const gateway: Endpoint = { ip: access.gateway, port: SSDP_PORT };
  const request = (target: string, to: Endpoint) => ({ bytes: encodeSearch(target, to), to });
  const requests = [
    ...[SSDP_MULTICAST, gateway].flatMap((to) => IGD_TARGETS.map((target) => request(target, to))),
    request(ROOT_TARGET, gateway),
  ];
  return exchange(access, { requests, pausesMs: SEARCH_PAUSES_MS, read }, signal);
}

class Finding {
  /** Aborted when a service has told its address. */
  readonly signal: AbortSignal;
  readonly #access: GatewayAccess;
  readonly #found = new AbortController();
  readonly #ends = new Map<string, Promise<void>>();
  readonly #left = { own: MAX_LOCATIONS, others: MAX_LOCATIONS };
  readonly #known: WanService[] = [];
  readonly #failures: unknown[] = [];
  #working: WanService | undefined;

  constructor(access: GatewayAccess, signal: AbortSignal) {
    this.#access = access;
    this.signal = AbortSignal.any([signal, this.#found.signal]);
  }

  follow(location: string, isOwn: boolean): void {
    if (this.#ends.has(location) || this.#left[isOwn ? "own" : "others"]-- <= 0) return;
    const end = this.#connect(location).catch((error) => void this.#failures.push(error));
    this.#ends.set(location, end);
  }

  /** Undefined where nobody answered. Throws the first failure where no service is of use. */
  async result(): Promise<UpnpMapper | undefined> {
    await Promise.all(this.#ends.values());
    if (this.#working) return new UpnpMapper(this.#working, this.#known);
    if (this.#failures.length > 0) throw this.#failures[0];
    return undefined;
  }

  async #connect(location: string): Promise<void> {
    const { gateway } = this.#access;
    const url = gatewayUrl(location, new URL(`http://${gateway}/`), gateway);
    const services = await readServices(this.#access, url, this.signal);
    this.#known.push(...services);
    const working = await firstConnected(services, this.#access, this.signal);
    this.#working ??= working;
    this.#found.abort();
  }
}

/** The services of a description, best first. Throws {@link PortMapRefusedError} where it has none. */
async function readServices(
  access: GatewayAccess,
  location: URL,
  signal: AbortSignal,
): Promise<WanService[]> {
  const { url, text } = await readPage(access, location, signal);
  const { baseUrl = "", services } = refusing(() => decodeDescription(text));
  // URLBase is often left from another address or port: what is relative is tried from both.
  const bases = [gatewayUrl(baseUrl, url, access.gateway), url];
  const controls = services.flatMap(({ type, controlUrl }) =>
    bases.map((base) => ({ type, url: gatewayUrl(controlUrl, base, access.gateway) }))
  );
  if (controls.length === 0) throw new PortMapRefusedError("no service for port mappings");
  const known = new Map(controls.map((control) => [`${control.type} ${control.url}`, control]));
  return [...known.values()].map((control) => new WanService(access, control));
}

async function readPage(
  access: GatewayAccess,
  location: URL,
  signal: AbortSignal,
): Promise<{ url: URL; text: string }> {
  let url = location;
  for (let redirections = 0;; redirections++) {
    const { status, location, text } = await askHttp(access, { method: "GET", url }, signal);
    if (status === 200) return { url, text };
    if (!location || !REDIRECTIONS.includes(status) || redirections === MAX_REDIRECTIONS) {
      throw new PortMapRefusedError(`HTTP status ${status} for its description`);
    }
    url = gatewayUrl(location, url, access.gateway);
  }
}

/** One that has an external address; throws why the first has none. */
async function firstConnected(
  services: readonly WanService[],
  { clock }: GatewayAccess,
  signal: AbortSignal,
): Promise<WanService> {
  const ask = (service: WanService, signal: AbortSignal) =>
    service.askAddress(signal).then(() => service);
  try {
    return await firstToSucceed(services, ask, { delayMs: SERVICE_DELAY_MS, clock, signal });
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error;
  }
}

/**
 * A URL that the gateway wrote. Nobody is to be led elsewhere by it: where it names another host,
 * as one of the gateway's other addresses or names, the gateway's own address is taken in its place.
 * Throws {@link PortMapRefusedError}.
 */
export function gatewayUrl(text: string, base: URL | undefined, gateway: Ip): URL {
  const url = URL.parse(text, base);
  if (url?.protocol !== "http:" || url.username !== "" || url.password !== "") {
    throw new PortMapRefusedError(`no URL of HTTP: ${JSON.stringify(text.slice(0, 100))}`);
  }
  url.hostname = gateway;
  return url;
}
