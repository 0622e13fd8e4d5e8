/**
 * SSDP, how a UPnP device is found (UPnP Device Architecture 2.0, section 1.3): a request in the
 * form of HTTP in one datagram to port 1900, answered by a datagram from the device.
 */
import { type Endpoint, formatEndpoint, parseIp } from "../addr.ts";
import { PortMapFormatError } from "./errors.ts";
import { readHeaders } from "./http_answer.ts";

export const SSDP_PORT = 1900;
export const SSDP_MULTICAST: Endpoint = { ip: parseIp("239.255.255.250"), port: SSDP_PORT };

const IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:";
/** A gateway of version 2 should answer to both. */
export const IGD_TARGETS: readonly string[] = [`${IGD}1`, `${IGD}2`];

/** Answered by every device; some gateways do not know their own type. */
export const ROOT_TARGET = "upnp:rootdevice";

const MAX_LENGTH = 4096;
const OK = /^\s*HTTP\/\d(?:\.\d)?\s+200(?:\D|$)/i;
/** In the target that is answered, or the name of the service. */
const GATEWAY = /InternetGatewayDevice|WAN(?:IP|PPP)Connection|WAN(?:Connection)?Device/i;

/** `host`: where it is sent. The device waits up to `MX` seconds, so that not all answer at once. */
export function encodeSearch(target: string, host: Endpoint): Uint8Array {
  const lines = [
    "M-SEARCH * HTTP/1.1",
    `HOST: ${formatEndpoint(host)}`,
    'MAN: "ssdp:discover"',
    "MX: 1",
    `ST: ${target}`,
    "",
    "",
  ];
  return new TextEncoder().encode(lines.join("\r\n"));
}

export interface SearchAnswer {
  location: string;
  /** Whether the device calls itself a gateway. */
  isGateway: boolean;
}

/** Lines without a colon are skipped. Throws {@link PortMapFormatError} and nothing else. */
export function decodeSearchAnswer(bytes: Uint8Array): SearchAnswer {
  if (bytes.length > MAX_LENGTH) {
    throw new PortMapFormatError(`SSDP answer of ${bytes.length} bytes`);
  }
  const text = new TextDecoder().decode(bytes).replaceAll("\0", "");
  if (!OK.test(text)) throw new PortMapFormatError("not an answer of SSDP");
  const [head] = text.trimStart().split(/\r?\n\r?\n/);
  const headers = readHeaders(head!.split(/\r?\n/).slice(1));
  const location = headers.get("location");
  if (!location) throw new PortMapFormatError("SSDP answer without a location");
  const isGateway = ["st", "nt", "usn"].some((name) => GATEWAY.test(headers.get(name) ?? ""));
  return { location, isGateway };
}
