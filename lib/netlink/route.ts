/** Routes over rtnetlink (linux/rtnetlink.h, `struct rtmsg`). */
import { type Cidr, familyOf, type Ip, ipBytes, ipFromBytes, UNSPECIFIED_4 } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { attr, decodeAttrs, encodeAttrs, value } from "./attr.ts";
import { AF_INET, AF_INET6 } from "../linux/mod.ts";
import { checked } from "./message.ts";

export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MARK = 16;
const RTA_UID = 25;
const RTAX_MTU = 2;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RTN_UNICAST = 1;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;

export interface Route {
  /** "0.0.0.0/0" is the default route. */
  destination: Cidr;
  gateway?: Ip;
  /** ifindex of the device that packets leave by. */
  device?: number;
  source?: Ip;
  mtu?: number;
}

/** `struct rtmsg`: family, dst length, src length, tos, table, protocol, scope, type, flags. */
export function encodeRoute(route: Route): Uint8Array<ArrayBuffer> {
  const { destination, gateway, device, source } = route;
  const attrs = [];
  if (destination.prefixLength > 0) attrs.push(attr.bytes(RTA_DST, ipBytes(destination.ip)));
  if (gateway) attrs.push(attr.bytes(RTA_GATEWAY, ipBytes(gateway)));
  if (source) attrs.push(attr.bytes(RTA_PREFSRC, ipBytes(source)));
  if (device !== undefined) attrs.push(attr.u32(RTA_OIF, device));
  const scope = gateway || familyOf(destination.ip) === 6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
  return new Writer("host")
    .u8(family(destination.ip)).u8(destination.prefixLength).u8(0).u8(0)
    .u8(RT_TABLE_MAIN).u8(RTPROT_STATIC).u8(scope).u8(RTN_UNICAST).u32(0)
    .bytes(encodeAttrs(attrs)).finish();
}

/** Whose packets; unless told, those of this user, without a firewall's mark. */
export interface RouteSender {
  mark?: number;
  uid?: number;
}

/** "Which way to `ip`?" */
export function encodeRouteLookup(
  ip: Ip,
  { mark, uid }: RouteSender = {},
): Uint8Array<ArrayBuffer> {
  const length = ipBytes(ip).length * 8;
  const attrs = [
    attr.bytes(RTA_DST, ipBytes(ip)),
    ...(mark === undefined ? [] : [attr.u32(RTA_MARK, mark)]),
    ...(uid === undefined ? [] : [attr.u32(RTA_UID, uid)]),
  ];
  return new Writer("host").u8(family(ip)).u8(length).zeros(10).bytes(encodeAttrs(attrs)).finish();
}

export const decodeRoute = checked(
  "route",
  (payload: Uint8Array): Route & { table: number; type: number } => {
    const reader = new Reader(payload, "host");
    const rtmFamily = reader.u8();
    const prefixLength = reader.u8();
    reader.skip(2);
    const table = reader.u8();
    reader.skip(2);
    const type = reader.u8();
    reader.skip(4);
    const a = decodeAttrs(reader.bytes());
    const any = rtmFamily === AF_INET ? UNSPECIFIED_4 : ipFromBytes(new Uint8Array(16));
    const ip = (t: number) => a.has(t) ? ipFromBytes(a.get(t)!) : undefined;
    const [gateway, source, device] = [ip(RTA_GATEWAY), ip(RTA_PREFSRC), value.u32(a.get(RTA_OIF))];
    const mtu = value.u32(decodeAttrs(a.get(RTA_METRICS) ?? new Uint8Array()).get(RTAX_MTU));
    return {
      destination: { ip: ip(RTA_DST) ?? any, prefixLength },
      table,
      type,
      ...(gateway ? { gateway } : {}),
      ...(source ? { source } : {}),
      ...(device === undefined ? {} : { device }),
      ...(mtu ? { mtu } : {}),
    };
  },
);

/** Routes of the main table to other hosts: no local, broadcast or multicast entries. */
export function isMainUnicast(route: { table: number; type: number }): boolean {
  return route.table === RT_TABLE_MAIN && route.type === RTN_UNICAST;
}

function family(ip: Ip): number {
  return familyOf(ip) === 4 ? AF_INET : AF_INET6;
}
