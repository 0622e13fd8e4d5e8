/**
 * The XML of UPnP gateways (UPnP Device Architecture 2.0): the description of a device (section
 * 2.3), and actions in SOAP with their answers (section 3.2).
 */
import { PortMapFormatError } from "./errors.ts";
import { child, descend, parseXml, type XmlElement } from "./xml.ts";

/** As they are tried. */
export const SERVICE_TYPES: readonly string[] = [
  "urn:schemas-upnp-org:service:WANIPConnection:2",
  "urn:schemas-upnp-org:service:WANIPConnection:1",
  "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

export interface UpnpService {
  type: string;
  /** As the device wrote it: absolute, or relative to `DeviceDescription.baseUrl`. */
  controlUrl: string;
}

export interface DeviceDescription {
  /** That of the description itself where there is none. */
  baseUrl: string | undefined;
  /** Those of {@link SERVICE_TYPES}, in that order. */
  services: UpnpService[];
}

/** Throws {@link PortMapFormatError} and nothing else. */
export function decodeDescription(text: string): DeviceDescription {
  const root = parseXml(text);
  if (root.name !== "root") throw new PortMapFormatError("not a description of a UPnP device");
  const all = servicesOf(root);
  const services = SERVICE_TYPES.flatMap((type) => all.filter((service) => service.type === type));
  return { baseUrl: child(root, "URLBase")?.text || undefined, services };
}

/** Of a `root` or `device` and all devices in it. */
function servicesOf(element: XmlElement): UpnpService[] {
  const own = (child(element, "serviceList")?.children ?? []).map((service) => ({
    type: child(service, "serviceType")?.text ?? "",
    controlUrl: child(service, "controlURL")?.text ?? "",
  }));
  const inner = [element, child(element, "deviceList")]
    .flatMap((each) => each?.children ?? []).filter(({ name }) => name === "device");
  return [...own, ...inner.flatMap(servicesOf)];
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

/** Throws {@link PortMapFormatError} and nothing else. */
export function decodeActionAnswer(action: string, text: string): SoapAnswer {
  const envelope = parseXml(text);
  const body = envelope.name === "Envelope" ? child(envelope, "Body") : undefined;
  const response = child(body, `${action}Response`);
  if (response) {
    const values = new Map(response.children.map(({ name, text }) => [name, text]));
    return { kind: "response", values };
  }
  const error = body && descend(body, "Fault", "detail", "UPnPError");
  const code = child(error, "errorCode")?.text ?? "";
  if (!/^\d{1,5}$/.test(code)) throw new PortMapFormatError(`not an answer to ${action}`);
  const description = child(error, "errorDescription")?.text ?? "";
  return { kind: "fault", code: Number(code), description: description.slice(0, 100) };
}
