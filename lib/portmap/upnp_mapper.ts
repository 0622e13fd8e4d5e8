/** A gateway that is asked by UPnP-IGD (WANIPConnection:1 and :2, WANPPPConnection:1). */
import { type Endpoint, type Ip, isUnspecified, parseIp } from "../addr.ts";
import type { Datagram } from "../edges.ts";
import { errorText } from "../errors.ts";
import { PortMapFormatError, PortMapRefusedError } from "./errors.ts";
import { exchange, withDeadline } from "./exchange.ts";
import type { GatewayAccess, Lease, LeaseState, MapRequest, PortMapper } from "./protocol.ts";
import {
  decodeSearchAnswer,
  encodeSearch,
  IGD_TARGETS,
  SSDP_MULTICAST,
  SSDP_PORT,
} from "./ssdp.ts";
import {
  decodeActionAnswer,
  decodeDescription,
  encodeAction,
  type SoapArguments,
} from "./upnp_xml.ts";

/** Devices take up to a second before they answer (MX). */
const SEARCH_PAUSES_MS: readonly number[] = [250, 500, 1250];
/** Of search, description and the external address together. */
const DISCOVERY_MS = 2500;
const REQUEST_MS = 2500;
const MAX_BODY_BYTES = 128 * 1024;
const DESCRIPTION = "gretun";
/** Ports that are tried where another host has the first one. */
const MAX_TRIES = 4;
const FIRST_UNPRIVILEGED_PORT = 1024;

/** UPnP Device Architecture, table 3-4, and WANIPConnection:2, section 2.5. */
const FAULT = {
  invalidArgs: 402,
  noSuchEntry: 714,
  conflict: 718,
  samePortsRequired: 724,
  onlyPermanentLeases: 725,
  conflictWithOtherMechanisms: 729,
} as const;

/** The gateway answered an action with an error. */
class UpnpFault extends PortMapRefusedError {
  override name = "UpnpFault";
  readonly code: number;

  constructor(action: string, code: number, description: string) {
    super(`${action}: error ${code}${description ? ` (${description})` : ""}`);
    this.code = code;
  }
}

/** Where a service takes its actions. */
interface Control {
  type: string;
  url: URL;
}

/** See `Discover`. */
export async function discoverUpnp(
  access: GatewayAccess,
  signal: AbortSignal,
): Promise<PortMapper | undefined> {
  return await withDeadline(access.clock, DISCOVERY_MS, signal, async (signal) => {
    const location = await search(access, signal);
    if (location === undefined) return undefined;
    return await connect(access, await readControls(access, location, signal), signal);
  });
}

/** Asks all devices, and the gateway by itself: its answer to that passes this host's firewall. */
function search(access: GatewayAccess, signal: AbortSignal): Promise<string | undefined> {
  const places: Endpoint[] = [SSDP_MULTICAST, { ip: access.gateway, port: SSDP_PORT }];
  const requests = places.flatMap((to) =>
    IGD_TARGETS.map((target) => ({ bytes: encodeSearch(target, to), to }))
  );
  const read = ({ bytes, from }: Datagram) =>
    from.ip === access.gateway ? decodeSearchAnswer(bytes) : undefined;
  return exchange(access, { requests, pausesMs: SEARCH_PAUSES_MS, read }, signal);
}

/** The services of the gateway that make mappings, best first. */
async function readControls(
  access: GatewayAccess,
  location: string,
  signal: AbortSignal,
): Promise<Control[]> {
  const url = gatewayUrl(location, undefined, access.gateway);
  const { status, text } = await request(access, url, { method: "GET" }, signal);
  if (status !== 200) throw new PortMapRefusedError(`HTTP status ${status} for its description`);
  const { baseUrl, services } = refusing(() => decodeDescription(text));
  const base = baseUrl === undefined ? url : gatewayUrl(baseUrl, undefined, access.gateway);
  return services.map(({ type, controlUrl }) => ({
    type,
    url: gatewayUrl(controlUrl, base, access.gateway),
  }));
}

/** The first service that is connected; else the first one. */
async function connect(
  access: GatewayAccess,
  controls: Control[],
  signal: AbortSignal,
): Promise<PortMapper> {
  let failure: unknown = new PortMapRefusedError("no service for port mappings");
  for (const control of controls) {
    const mapper = new UpnpMapper(access, control);
    try {
      await mapper.askAddress(signal);
      return mapper;
    } catch (error) {
      if (!(error instanceof PortMapRefusedError)) throw error;
      failure = error;
    }
  }
  throw failure;
}

/** Nobody is to be led elsewhere by a description. Throws {@link PortMapRefusedError}. */
export function gatewayUrl(text: string, base: URL | undefined, gateway: Ip): URL {
  const url = URL.parse(text, base);
  if (
    url?.protocol !== "http:" || url.hostname !== gateway || url.username !== "" ||
    url.password !== ""
  ) {
    throw new PortMapRefusedError(
      `a URL that is not the gateway's own: ${JSON.stringify(text.slice(0, 100))}`,
    );
  }
  return url;
}

class UpnpMapper implements PortMapper {
  readonly protocol = "upnp";
  #externalIp: Ip | undefined;
  readonly #access: GatewayAccess;
  readonly #control: Control;

  constructor(access: GatewayAccess, control: Control) {
    this.#access = access;
    this.#control = control;
  }

  get externalIp(): Ip | undefined {
    return this.#externalIp;
  }

  /** Throws {@link PortMapRefusedError} also where the gateway has none. */
  async askAddress(signal: AbortSignal): Promise<Ip> {
    const values = await this.#act("GetExternalIPAddress", [], signal);
    const text = values.get("NewExternalIPAddress") ?? "";
    const ip = text === "" ? undefined : refusing(() => parseAddress(text));
    if (!ip || isUnspecified(ip)) {
      throw new PortMapRefusedError("the gateway has no external address");
    }
    return this.#externalIp = ip;
  }

  async map(request: MapRequest, signal: AbortSignal): Promise<Lease> {
    let wanted = request;
    for (let tries = 1;; tries++) {
      try {
        const port = await this.#add(wanted, signal);
        const ip = await this.askAddress(signal);
        return { external: { ip, port }, lifetimeSeconds: request.lifetimeSeconds };
      } catch (error) {
        const next = error instanceof UpnpFault && this.#afterFault(error.code, wanted);
        if (!next || tries === MAX_TRIES) throw error;
        wanted = next;
      }
    }
  }

  async check(
    { internalPort }: MapRequest,
    { external }: Lease,
    signal: AbortSignal,
  ): Promise<LeaseState> {
    try {
      const args: SoapArguments = [
        ["NewRemoteHost", ""],
        ["NewExternalPort", external.port],
        ["NewProtocol", "UDP"],
      ];
      const values = await this.#act("GetSpecificPortMappingEntry", args, signal);
      const isOurs = values.get("NewInternalClient") === this.#access.local &&
        values.get("NewInternalPort") === String(internalPort);
      return isOurs && await this.askAddress(signal) === external.ip ? "kept" : "lost";
    } catch (error) {
      if (error instanceof UpnpFault && error.code === FAULT.noSuchEntry) return "lost";
      throw error;
    }
  }

  async unmap(_: MapRequest, { external }: Lease, signal: AbortSignal): Promise<void> {
    const args: SoapArguments = [
      ["NewRemoteHost", ""],
      ["NewExternalPort", external.port],
      ["NewProtocol", "UDP"],
    ];
    await this.#act("DeletePortMapping", args, signal);
  }

  /** Adding what is there already renews it. Gives the external port. */
  async #add(request: MapRequest, signal: AbortSignal): Promise<number> {
    const args: SoapArguments = [
      ["NewRemoteHost", ""],
      ["NewExternalPort", request.external.port],
      ["NewProtocol", "UDP"],
      ["NewInternalPort", request.internalPort],
      ["NewInternalClient", this.#access.local],
      ["NewEnabled", 1],
      ["NewPortMappingDescription", DESCRIPTION],
      ["NewLeaseDuration", request.lifetimeSeconds],
    ];
    if (!this.#choosesPorts) {
      await this.#act("AddPortMapping", args, signal);
      return request.external.port;
    }
    const values = await this.#act("AddAnyPortMapping", args, signal);
    return refusing(() => parsePort(values.get("NewReservedPort") ?? ""));
  }

  /** WANIPConnection:2 has AddAnyPortMapping, which takes another port where one is in use. */
  get #choosesPorts(): boolean {
    return this.#control.type.endsWith(":WANIPConnection:2");
  }

  /** What to ask for after an error; undefined where nothing helps. */
  #afterFault(code: number, request: MapRequest): MapRequest | undefined {
    const at = (port: number) => ({ ...request, external: { ...request.external, port } });
    switch (code) {
      case FAULT.invalidArgs:
      case FAULT.onlyPermanentLeases:
        return request.lifetimeSeconds > 0 ? { ...request, lifetimeSeconds: 0 } : undefined;
      case FAULT.conflict:
      case FAULT.conflictWithOtherMechanisms:
        return at(this.#anyPort());
      case FAULT.samePortsRequired:
        return request.external.port === request.internalPort
          ? undefined
          : at(request.internalPort);
      default:
        return undefined;
    }
  }

  #anyPort(): number {
    const [high, low] = this.#access.random(2);
    const number = high! * 256 + low!;
    return FIRST_UNPRIVILEGED_PORT + number % (65536 - FIRST_UNPRIVILEGED_PORT);
  }

  async #act(
    action: string,
    args: SoapArguments,
    signal: AbortSignal,
  ): Promise<Map<string, string>> {
    const { type, url } = this.#control;
    const { text } = await request(this.#access, url, {
      method: "POST",
      headers: { "Content-Type": 'text/xml; charset="utf-8"', SOAPAction: `"${type}#${action}"` },
      body: encodeAction(type, action, args),
    }, signal);
    const answer = refusing(() => decodeActionAnswer(action, text));
    if (answer.kind === "fault") throw new UpnpFault(action, answer.code, answer.description);
    return answer.values;
  }
}

/** One HTTP request to the gateway. Throws {@link PortMapRefusedError}, and the signal's reason. */
async function request(
  { net, clock }: GatewayAccess,
  url: URL,
  init: RequestInit,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  return await withDeadline(clock, REQUEST_MS, signal, async (within) => {
    try {
      const response = await net.request(url, { ...init, redirect: "manual", signal: within });
      return { status: response.status, text: await readText(response) };
    } catch (error) {
      within.throwIfAborted();
      if (error instanceof PortMapRefusedError) throw error;
      throw new PortMapRefusedError(`HTTP request failed: ${errorText(error)}`, { cause: error });
    }
  });
}

async function readText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let length = 0;
  let text = "";
  // Leaving the loop early cancels the rest of the body.
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) {
      throw new PortMapRefusedError(`an HTTP answer of more than ${MAX_BODY_BYTES} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function parseAddress(text: string): Ip {
  try {
    return parseIp(text);
  } catch {
    throw new PortMapFormatError(
      `an external address that is none: ${JSON.stringify(text.slice(0, 100))}`,
    );
  }
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port > 0 && port <= 65535) return port;
  throw new PortMapFormatError(
    `an external port that is none: ${JSON.stringify(text.slice(0, 100))}`,
  );
}

/** HTTP says who answered: what makes no sense there is a refusal, not noise. */
function refusing<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof PortMapFormatError)) throw error;
    throw new PortMapRefusedError(error.message, { cause: error });
  }
}
