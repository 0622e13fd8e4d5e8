/** A gateway that is asked by UPnP-IGD (WANIPConnection:1 and :2, WANPPPConnection:1). */
import { type Ip, isUnspecified, parseIp } from "../addr.ts";
import { PortMapFormatError, PortMapRefusedError } from "./errors.ts";
import { askHttp } from "./http.ts";
import type { GatewayAccess, Lease, LeaseState, MapRequest, PortMapper } from "./protocol.ts";
import { decodeActionAnswer, encodeAction, type SoapArguments } from "./upnp_xml.ts";

const DESCRIPTION = "gretun";
/** Ports that are tried where another host has the first one. */
const MAX_TRIES = 4;
const FIRST_UNPRIVILEGED_PORT = 1024;

/** UPnP Device Architecture, table 3-4, and WANIPConnection:2, section 2.5. */
const FAULT = {
  invalidAction: 401,
  invalidArgs: 402,
  actionFailed: 501,
  notImplemented: 602,
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
export interface Control {
  type: string;
  url: URL;
}

/**
 * All services of a gateway that may make mappings: some announce one that tells its address and
 * refuses everything else, beside one that works.
 */
export class UpnpMapper implements PortMapper {
  readonly protocol = "upnp";
  readonly #others: readonly WanService[];
  #current: WanService;

  constructor(current: WanService, others: readonly WanService[]) {
    this.#current = current;
    this.#others = others;
  }

  get externalIp(): Ip | undefined {
    return this.#current.externalIp;
  }

  async map(request: MapRequest, signal: AbortSignal): Promise<Lease> {
    let failure: unknown;
    for (const service of new Set([this.#current, ...this.#others])) {
      try {
        const lease = await service.map(request, signal);
        this.#current = service;
        return lease;
      } catch (error) {
        if (!(error instanceof PortMapRefusedError)) throw error;
        failure ??= error;
      }
    }
    throw failure;
  }

  check(request: MapRequest, lease: Lease, signal: AbortSignal): Promise<LeaseState> {
    return this.#current.check(request, lease, signal);
  }

  unmap(request: MapRequest, lease: Lease, signal: AbortSignal): Promise<void> {
    return this.#current.unmap(request, lease, signal);
  }
}

/** One service of a gateway. */
export class WanService {
  #externalIp: Ip | undefined;
  readonly #access: GatewayAccess;
  readonly #control: Control;
  /** WANIPConnection:2 has AddAnyPortMapping, which takes another port where one is in use. */
  #choosesPorts: boolean;

  constructor(access: GatewayAccess, control: Control) {
    this.#access = access;
    this.#control = control;
    this.#choosesPorts = /:WANIPConnection:[2-9]$/i.test(control.type);
  }

  get externalIp(): Ip | undefined {
    return this.#externalIp;
  }

  /** Throws {@link PortMapRefusedError} also where the gateway has none. */
  async askAddress(signal: AbortSignal): Promise<Ip> {
    const values = await this.#act("GetExternalIPAddress", [], signal);
    const text = values.get("newexternalipaddress") ?? "";
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
        const next = error instanceof UpnpFault &&
          await this.#afterFault(error.code, wanted, signal);
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
      const isOurs = await this.#isOurs(internalPort, external.port, signal);
      return isOurs && await this.askAddress(signal) === external.ip ? "kept" : "lost";
    } catch (error) {
      if (error instanceof UpnpFault && error.code === FAULT.noSuchEntry) return "lost";
      throw error;
    }
  }

  async unmap(_: MapRequest, { external }: Lease, signal: AbortSignal): Promise<void> {
    await this.#delete(external.port, signal);
  }

  /** Throws where the gateway has no such mapping, or does not tell. */
  async #isOurs(internalPort: number, port: number, signal: AbortSignal): Promise<boolean> {
    const values = await this.#act("GetSpecificPortMappingEntry", entry(port), signal);
    return values.get("newinternalclient") === this.#access.local &&
      values.get("newinternalport") === String(internalPort);
  }

  async #delete(port: number, signal: AbortSignal): Promise<void> {
    await this.#act("DeletePortMapping", entry(port), signal);
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
    return refusing(() => parsePort(values.get("newreservedport") ?? ""));
  }

  /** What to ask for after an error; undefined where nothing helps. */
  async #afterFault(
    code: number,
    request: MapRequest,
    signal: AbortSignal,
  ): Promise<MapRequest | undefined> {
    const at = (port: number) => ({ ...request, external: { ...request.external, port } });
    switch (code) {
      case FAULT.invalidAction:
      case FAULT.notImplemented:
        if (!this.#choosesPorts) return undefined;
        this.#choosesPorts = false;
        return request;
      case FAULT.invalidArgs:
      case FAULT.actionFailed:
      case FAULT.onlyPermanentLeases:
        return request.lifetimeSeconds > 0 ? { ...request, lifetimeSeconds: 0 } : undefined;
      case FAULT.conflict:
      case FAULT.conflictWithOtherMechanisms:
        return await this.#hasRemovedOwn(request, signal) ? request : at(this.#anyPort());
      case FAULT.samePortsRequired:
        return request.external.port === request.internalPort
          ? undefined
          : at(request.internalPort);
      default:
        return undefined;
    }
  }

  /** Some gateways call it a conflict when a mapping is renewed. */
  async #hasRemovedOwn(request: MapRequest, signal: AbortSignal): Promise<boolean> {
    try {
      if (!await this.#isOurs(request.internalPort, request.external.port, signal)) return false;
      await this.#delete(request.external.port, signal);
      return true;
    } catch (error) {
      if (error instanceof PortMapRefusedError) return false;
      throw error;
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
    const answered = await askHttp(this.#access, {
      method: "POST",
      url,
      headers: [
        ["Content-Type", 'text/xml; charset="utf-8"'],
        ["SOAPAction", `"${type}#${action}"`],
      ],
      body: encodeAction(type, action, args),
    }, signal);
    const answer = refusing(() => decodeActionAnswer(action, answered));
    if (answer.kind === "fault") throw new UpnpFault(action, answer.code, answer.description);
    return answer.values;
  }
}

/** By which a mapping is named. */
function entry(port: number): SoapArguments {
  return [["NewRemoteHost", ""], ["NewExternalPort", port], ["NewProtocol", "UDP"]];
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
export function refusing<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof PortMapFormatError)) throw error;
    throw new PortMapRefusedError(error.message, { cause: error });
  }
}
