/** Interface addresses over rtnetlink (linux/if_addr.h). */
import { familyOf, type Ip, ipBytes, ipFromBytes, isLinkLocal } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { attr, decodeAttrs, encodeAttrs } from "./attr.ts";
import { AF_INET, AF_INET6 } from "../linux/mod.ts";
import { checked } from "./message.ts";

export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
/** Of IPv6: made to be used for a while, so that hosts are not recognised by it (RFC 8981). */
const IFA_F_TEMPORARY = 0x01;
/** Skip duplicate address detection: a tunnel's address is nobody else's. */
const IFA_F_NODAD = 0x02;
const IFA_F_DADFAILED = 0x08;
/** Not for new connections: its preferred lifetime is over. */
const IFA_F_DEPRECATED = 0x20;
/** Duplicate address detection is under way. */
const IFA_F_TENTATIVE = 0x40;
const NOT_LASTING = IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE;

export interface InterfaceAddress {
  ifindex: number;
  /** This host's address. */
  local: Ip;
  /** The far end's, on a point-to-point link. */
  peer?: Ip;
  /** Of the peer where there is one, else of the local address. */
  prefixLength: number;
  broadcast?: Ip;
  /** Link-local of IPv6, made by the kernel when the link came up: nobody asked for it. */
  isAutomatic?: true;
  /** Of IPv6: temporary, deprecated, or not known to be this host's alone. */
  isNotLasting?: true;
}

/** `struct ifaddrmsg`: family, prefix length, flags, scope, ifindex; 8 bytes. Then attributes. */
export function encodeAddress(address: InterfaceAddress): Uint8Array<ArrayBuffer> {
  const { ifindex, local, peer, prefixLength, broadcast } = address;
  const ipv4 = familyOf(local) === 4;
  const attrs = [
    attr.bytes(IFA_LOCAL, ipBytes(local)),
    attr.bytes(IFA_ADDRESS, ipBytes(peer ?? local)),
  ];
  if (broadcast) attrs.push(attr.bytes(IFA_BROADCAST, ipBytes(broadcast)));
  return new Writer("host")
    .u8(ipv4 ? AF_INET : AF_INET6).u8(prefixLength).u8(ipv4 ? 0 : IFA_F_NODAD).u8(0).u32(ifindex)
    .bytes(encodeAttrs(attrs)).finish();
}

export const decodeAddress = checked(
  "address",
  (payload: Uint8Array): InterfaceAddress | undefined => {
    const reader = new Reader(payload, "host").skip(1);
    const prefixLength = reader.u8();
    const flags = reader.u8();
    reader.skip(1);
    const ifindex = reader.u32();
    const a = decodeAttrs(reader.bytes());
    const address = a.get(IFA_ADDRESS);
    const local = a.get(IFA_LOCAL) ?? address;
    if (!local || !address) return undefined;
    const [localIp, peer] = [ipFromBytes(local), ipFromBytes(address)];
    const broadcast = a.get(IFA_BROADCAST);
    return {
      ifindex,
      local: localIp,
      prefixLength,
      ...(peer === localIp ? {} : { peer }),
      ...(broadcast ? { broadcast: ipFromBytes(broadcast) } : {}),
      ...(isAutomatic(localIp, flags) ? { isAutomatic: true } : {}),
      ...(familyOf(localIp) === 6 && (flags & NOT_LASTING) !== 0 ? { isNotLasting: true } : {}),
    };
  },
);

/** Not every kernel says who made an address (IFA_PROTO); what we add skips the detection. */
function isAutomatic(ip: Ip, flags: number): boolean {
  return familyOf(ip) === 6 && isLinkLocal(ip) && (flags & IFA_F_NODAD) === 0;
}
