/** What can go wrong between this host and its gateway. */
import { GretunError } from "../errors.ts";
import { type PortMapProtocol, PROTOCOL_NAMES, PROTOCOLS } from "./protocol.ts";

/** What arrived is no answer that can be used: drop it. */
export class PortMapFormatError extends Error {
  override name = "PortMapFormatError";
}

/** The gateway answers and says no, or stopped answering: this protocol is of no use now. */
export class PortMapRefusedError extends Error {
  override name = "PortMapRefusedError";
}

/** No protocol led to a mapping; most networks are like that, so callers catch it. */
export class NoPortMappingError extends GretunError {
  override name = "NoPortMappingError";
  /** Why not, for each protocol that was tried. */
  readonly reasons: Partial<Record<PortMapProtocol, string>>;

  constructor(gateway: string, reasons: Partial<Record<PortMapProtocol, string>>) {
    const texts = PROTOCOLS.filter((protocol) => reasons[protocol] !== undefined)
      .map((protocol) => `${PROTOCOL_NAMES[protocol]}: ${reasons[protocol]}`);
    super(
      `no port mapping from the gateway ${gateway}: ${texts.join("; ")}`,
      "Switch on PCP, NAT-PMP or UPnP in the router, or forward a UDP port there by hand",
    );
    this.reasons = reasons;
  }
}
