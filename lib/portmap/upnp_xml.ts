/**
 * The XML of UPnP gateways (UPnP Device Architecture 2.0): the description of a device (section
 * 2.3), and actions in SOAP with their answers (section 3.2).
 */
import { PortMapFormatError } from "./errors.ts";
import { findAll, readXml, textOf, type XmlElement } from "./xml.ts";

/** As they are tried, best first; a newer version of a service can do what an older one can. */
const SERVICE_TYPES: readonly RegExp[] = [
  /:service:WANIPConnection:[2-9]$/i,
  /:service:WANIPConnection:\d+$/i,
  /:service:WANPPPConnection:\d+$/i,
];

export interface UpnpService {
  type: string;
  /** As the device wrote it: absolute, or relative to `DeviceDescription.baseUrl`. */
  controlUrl: string;
}

export interface DeviceDescription {
  /** That of the description itself where there is none. */
  baseUrl: string | undefined;
  /** Those that make mappings, best first. */
  services: UpnpService[];
}

/** Throws {@link PortMapFormatError} and nothing else. */
export function decodeDescription(text: string): DeviceDescription {
  const document = readXml(text);
  const services = findAll(document, "service").map((service) => ({
    type: textOf(service, "serviceType") ?? "",
    controlUrl: textOf(service, "controlURL") ?? "",
  }));
  if (services.length === 0 && findAll(document, "device").length === 0) {
    throw new PortMapFormatError("not a description of a UPnP device");
  }
  const rank = ({ type }: UpnpService) => SERVICE_TYPES.findIndex((known) => known.test(type));
  const known = services.filter((service) => rank(service) >= 0);
  return {
    baseUrl: textOf(document, "URLBase") || undefined,
    services: known.sort((a, b) => rank(a) - rank(b)),
  };
}

/** Names and values in the order of the action's definition; nothing in them needs escaping. */
export type SoapArguments = readonly (readonly [name: string, value: string | number])[];

export function encodeAction(serviceType: string, action: string, args: SoapArguments): string {
  const inner = args.map(([name, value]) => `<${name}>${value}</${name}>`).join("");
  return '<?xml version="1.0"?>\r\n' +
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ' +
    's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>' +
    `<u:${action} xmlns:u="${serviceType}">${inner}</u:${action}></s:Body></s:Envelope>\r\n`;
}

export type SoapAnswer =
  | { kind: "response"; values: Map<string, string> }
  | { kind: "fault"; code: number; description: string };

/**
 * By names in lower case. That the answer is called otherwise, or empty where an action gives
 * nothing back, is no fault. Throws {@link PortMapFormatError} and nothing else.
 */
export function decodeActionAnswer(
  action: string,
  { status, text }: { status: number; text: string },
): SoapAnswer {
  const document = readXml(text);
  const code = textOf(document, "errorCode") ?? "";
  if (/^\d{1,5}$/.test(code)) {
    const description = textOf(document, "errorDescription") ?? "";
    return { kind: "fault", code: Number(code), description: description.slice(0, 100) };
  }
  const has = (name: string) => findAll(document, name).length > 0;
  const isFine = status === 200 && !has("Fault") && (text.trim() === "" || has("Envelope"));
  const response = findAll(document, `${action}Response`)[0] ?? (isFine ? document : undefined);
  if (!response) throw new PortMapFormatError(`not an answer to ${action}`);
  const values = new Map<string, string>();
  for (const { name, text } of allIn(response)) if (!values.has(name)) values.set(name, text);
  return { kind: "response", values };
}

function allIn({ children }: XmlElement): XmlElement[] {
  return children.flatMap((child) => [child, ...allIn(child)]);
}
