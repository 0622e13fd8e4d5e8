/**
 * How hosts of a network without IPv4 reach IPv4 addresses: by a translator, under a prefix of IPv6
 * (RFC 6052), which the network's name servers tell (RFC 7050).
 */
import { familyOf, type Ip, ipBytes, ipFromBytes, parseIp } from "./addr.ts";
import { equalBytes } from "./bytes.ts";
import type { Lookup } from "./lookup.ts";

/** It has IPv4 addresses alone, RFC 7050 section 2.2: whoever has others of it translates. */
const NAME = "ipv4only.arpa";
const ADDRESSES = [parseIp("192.0.0.170"), parseIp("192.0.0.171")].map(ipBytes);
/** RFC 6052 section 2.2. */
const PREFIX_LENGTHS_BYTES = [12, 8, 7, 6, 5, 4] as const;
/** Bits 64 to 71 are none of the IPv4 address. */
const U_OCTET = 8;

/** The address by which an IPv4 address is reached; IPv6 addresses stay. */
export type Translate = (ip: Ip) => Ip;

/** Undefined where the network does not translate, or nobody tells. */
export async function askTranslation(lookup: Lookup): Promise<Translate | undefined> {
  return translation(await lookup(NAME).catch(() => []));
}

/** By what ipv4only.arpa has here. */
export function translation(ips: readonly Ip[]): Translate | undefined {
  for (const bytes of ips.filter((ip) => familyOf(ip) === 6).map(ipBytes)) {
    const places = PREFIX_LENGTHS_BYTES.map(placesBehind).find((places) =>
      ADDRESSES.some((address) => equalBytes(address, pick(bytes, places)))
    );
    if (places) return (ip) => familyOf(ip) === 4 ? put(bytes, places, ipBytes(ip)) : ip;
  }
  return undefined;
}

/** Where the four bytes of the IPv4 address are. */
function placesBehind(prefixLengthBytes: number): number[] {
  return Array.from({ length: 5 }, (_, i) => prefixLengthBytes + i)
    .filter((place) => place !== U_OCTET).slice(0, 4);
}

function pick(bytes: Uint8Array, places: readonly number[]): Uint8Array {
  return Uint8Array.from(places, (place) => bytes[place]!);
}

function put(template: Uint8Array, places: readonly number[], address: Uint8Array): Ip {
  const bytes = template.slice();
  places.forEach((place, i) => bytes[place] = address[i]!);
  return ipFromBytes(bytes);
}
