/** Generic netlink (linux/genetlink.h) and its `fou` family (linux/fou.h): UDP receive ports. */
import { type Family, type Ip, ipBytes, ipFromBytes } from "../addr.ts";
import { Reader, Writer } from "../bytes.ts";
import { type Attr, attr, decodeAttrs, encodeAttrs, value } from "./attr.ts";
import { AF_INET, AF_INET6 } from "../linux/mod.ts";
import { NetlinkConnection, type NetlinkTransport } from "./message.ts";
import { NETLINK_GENERIC, openNetlink } from "./transport.ts";

const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const FOU_GENL_NAME = "fou";
const FOU_GENL_VERSION = 1;
const FOU_CMD_ADD = 1;
const FOU_CMD_DEL = 2;
const FOU_CMD_GET = 3;
const FOU_ATTR_PORT = 1;
const FOU_ATTR_AF = 2;
const FOU_ATTR_IPPROTO = 3;
const FOU_ATTR_TYPE = 4;
const FOU_ATTR_LOCAL_V4 = 6;
const FOU_ATTR_LOCAL_V6 = 7;
const FOU_ATTR_PEER_V4 = 8;
const FOU_ATTR_PEER_V6 = 9;
const FOU_ATTR_PEER_PORT = 10;
const FOU_ATTR_IFINDEX = 11;
const FOU_ENCAP_DIRECT = 1;
const FOU_ENCAP_GUE = 2;

/** A receive port of the kernel. */
export interface FouPort {
  port: number;
  family: Family;
  type: "direct" | "gue";
  /** What a direct port's payload is: 47 for GRE, 4 for IPIP. GUE says it in each packet. */
  ipproto?: number;
  local?: Ip;
  peer?: Ip;
  peerPort?: number;
  ifindex?: number;
}

/** `struct genlmsghdr`: command, version, two reserved bytes. */
function encodeGeneric(command: number, version: number, attrs: readonly Attr[]) {
  return new Writer("host").u8(command).u8(version).u16(0).bytes(encodeAttrs(attrs)).finish();
}

function decodeGeneric(payload: Uint8Array): Map<number, Uint8Array> {
  return decodeAttrs(new Reader(payload, "host").skip(4).bytes());
}

/** The number of a generic netlink family; throws `NetlinkError` ENOENT when it is not there. */
export function familyId(connection: NetlinkConnection, name: string): number {
  const attrs = [attr.string(CTRL_ATTR_FAMILY_NAME, name)];
  const [reply] = connection.request({
    type: GENL_ID_CTRL,
    payload: encodeGeneric(CTRL_CMD_GETFAMILY, 1, attrs),
    operation: `find the kernel's ${name} (modprobe ${name} loads it)`,
  });
  return value.u16(decodeGeneric(reply!.payload).get(CTRL_ATTR_FAMILY_ID))!;
}

/** Every method throws `NetlinkError`. The kernel says EADDRINUSE for a port that is taken. */
export class Fou implements Disposable {
  readonly #connection: NetlinkConnection;
  readonly #family: number;

  /** Throws when the kernel has no FOU, or its module is not loaded. */
  static open(transport: NetlinkTransport = openNetlink(NETLINK_GENERIC)): Fou {
    const connection = new NetlinkConnection(transport);
    try {
      return new Fou(connection, familyId(connection, FOU_GENL_NAME));
    } catch (error) {
      connection[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(connection: NetlinkConnection, family: number) {
    this.#connection = connection;
    this.#family = family;
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }

  ports(): FouPort[] {
    const payload = encodeGeneric(FOU_CMD_GET, FOU_GENL_VERSION, []);
    return this.#connection.dump({ type: this.#family, payload, operation: "list FOU ports" })
      .map((message) => decodePort(decodeGeneric(message.payload)));
  }

  add(port: FouPort): void {
    this.#connection.request({
      type: this.#family,
      payload: encodeGeneric(FOU_CMD_ADD, FOU_GENL_VERSION, encodePort(port)),
      operation: `open FOU port ${port.port}`,
    });
  }

  delete(port: Pick<FouPort, "port" | "family" | "local" | "peer" | "peerPort" | "ifindex">): void {
    this.#connection.request({
      type: this.#family,
      payload: encodeGeneric(FOU_CMD_DEL, FOU_GENL_VERSION, encodePlace(port)),
      operation: `close FOU port ${port.port}`,
    });
  }
}

function encodePort(port: FouPort): Attr[] {
  const type = port.type === "gue" ? FOU_ENCAP_GUE : FOU_ENCAP_DIRECT;
  const attrs = [...encodePlace(port), attr.u8(FOU_ATTR_TYPE, type)];
  // Newer kernels refuse a protocol of 0: GUE goes without.
  if (port.ipproto !== undefined) attrs.push(attr.u8(FOU_ATTR_IPPROTO, port.ipproto));
  return attrs;
}

function encodePlace(port: Omit<FouPort, "type" | "ipproto">): Attr[] {
  const ipv4 = port.family === 4;
  const attrs = [
    attr.be16(FOU_ATTR_PORT, port.port),
    attr.u8(FOU_ATTR_AF, ipv4 ? AF_INET : AF_INET6),
  ];
  const ip = (type: number, value: Ip) => attrs.push(attr.bytes(type, ipBytes(value)));
  if (port.local) ip(ipv4 ? FOU_ATTR_LOCAL_V4 : FOU_ATTR_LOCAL_V6, port.local);
  if (port.peer) ip(ipv4 ? FOU_ATTR_PEER_V4 : FOU_ATTR_PEER_V6, port.peer);
  if (port.peerPort !== undefined) attrs.push(attr.be16(FOU_ATTR_PEER_PORT, port.peerPort));
  if (port.ifindex !== undefined) attrs.push(attr.u32(FOU_ATTR_IFINDEX, port.ifindex));
  return attrs;
}

function decodePort(a: Map<number, Uint8Array>): FouPort {
  const bytes = (v4: number, v6: number) => a.get(v4) ?? a.get(v6);
  const [local, peer] = [
    bytes(FOU_ATTR_LOCAL_V4, FOU_ATTR_LOCAL_V6),
    bytes(FOU_ATTR_PEER_V4, FOU_ATTR_PEER_V6),
  ];
  const isSet = (b: Uint8Array | undefined) => b?.some((byte) => byte !== 0) ?? false;
  const peerPort = value.be16(a.get(FOU_ATTR_PEER_PORT)) ?? 0;
  const ifindex = value.u32(a.get(FOU_ATTR_IFINDEX)) ?? 0;
  const ipproto = value.u8(a.get(FOU_ATTR_IPPROTO)) ?? 0;
  return {
    port: value.be16(a.get(FOU_ATTR_PORT)) ?? 0,
    family: value.u8(a.get(FOU_ATTR_AF)) === AF_INET6 ? 6 : 4,
    type: value.u8(a.get(FOU_ATTR_TYPE)) === FOU_ENCAP_GUE ? "gue" : "direct",
    ...(ipproto ? { ipproto } : {}),
    ...(isSet(local) ? { local: ipFromBytes(local!) } : {}),
    ...(isSet(peer) ? { peer: ipFromBytes(peer!) } : {}),
    ...(peerPort ? { peerPort } : {}),
    ...(ifindex ? { ifindex } : {}),
  };
}
