/**
 * SSDP, how a UPnP device is found (UPnP Device Architecture 2.0, section 1.3): a request in the
 * form of HTTP in one datagram to port 1900, answered by a datagram from the device.
 */
import { type Endpoint, formatEndpoint, parseIp } from "../addr.ts";
import { PortMapFormatError } from "./errors.ts";

export const SSDP_PORT = 1900;
export const SSDP_MULTICAST: Endpoint = { ip: parseIp("239.255.255.250"), port: SSDP_PORT };

const IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:";
/** A gateway of version 2 should answer to both. */
export const IGD_TARGETS: readonly string[] = [`${IGD}1`, `${IGD}2`];

const MAX_LENGTH = 4096;
const OK = /^HTTP\/1\.[01] 200(?: |$)/;

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

/** The LOCATION of a gateway's answer. Throws {@link PortMapFormatError} and nothing else. */
export function decodeSearchAnswer(bytes: Uint8Array): string {
  if (bytes.length > MAX_LENGTH) {
    throw new PortMapFormatError(`SSDP answer of ${bytes.length} bytes`);
  }
  const [status, ...lines] = new TextDecoder().decode(bytes).split(/\r?\n/);
  if (!OK.test(status!)) throw new PortMapFormatError("not an answer of SSDP");
  const headers = decodeHeaders(lines);
  if (!headers.get("st")?.startsWith(IGD)) {
    throw new PortMapFormatError("SSDP answer of something else than a gateway");
  }
  const location = headers.get("location");
  if (!location) throw new PortMapFormatError("SSDP answer without a location");
  return location;
}

/** By names in lower case, up to the empty line; the first of a name counts. */
function decodeHeaders(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (const line of lines) {
    if (line === "") break;
    const colon = line.indexOf(":");
    if (colon < 1) throw new PortMapFormatError("SSDP answer with a line that is no header");
    const name = line.slice(0, colon).trim().toLowerCase();
    if (!headers.has(name)) headers.set(name, line.slice(colon + 1).trim());
  }
  return headers;
}
