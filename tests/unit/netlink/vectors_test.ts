/**
 * What our calls send, compared with what iproute2's `ip` sent for the same thing: type, flags,
 * fixed header, and every attribute. Order of attributes, sequence numbers and padding may differ.
 */
import { deepStrictEqual } from "node:assert/strict";
import { parseCidr, parseIp } from "../../../lib/addr.ts";
import { concatBytes, fromHex, toHex } from "../../../lib/bytes.ts";
import { Fou, RtNetlink, type Tunnel, type TunnelKind } from "../../../lib/netlink.ts";
import {
  attr,
  decodeAttrList,
  decodeAttrs,
  encodeAttrs,
  value,
} from "../../../lib/netlink/attr.ts";
import { decodeMessages, type NetlinkReply, NLM_F_DUMP } from "../../../lib/netlink/message.ts";
import { ack, done, type FakeKernel, FakeTransport, reply } from "../../fakes/kernel.ts";
import vectors from "../../vectors/netlink.json" with { type: "json" };

const GENL_ID_CTRL = 16;
/** As in the vectors. */
const FOU_FAMILY = 29;
const RTM_GETLINK = 18;
const RTM_GETROUTE = 26;
/** ifindex of v0 in the vectors. */
const V0 = 2;
const LO = 1;

const ip = parseIp;
const GRE: Tunnel = {
  local: ip("192.0.2.1"),
  remote: ip("192.0.2.2"),
  ttl: 64,
  pmtudisc: true,
};

// --- calls

const rtnl = (call: (rtnl: RtNetlink) => void) => (transport: FakeTransport) => {
  using open = RtNetlink.open(transport);
  call(open);
};
const GRE6: Tunnel = {
  local: ip("2001:db8::1"),
  remote: ip("2001:db8::2"),
  ttl: 64,
  pmtudisc: true,
};
const tunnel = (kind: TunnelKind, tunnel: Tunnel) =>
  rtnl((r) => r.createLink({ name: "g0", kind, tunnel }));
const gre = (settings: Tunnel) => tunnel("gre", settings);
const fou = (call: (fou: Fou) => void) => (transport: FakeTransport) => {
  using open = Fou.open(transport);
  transport.requests.length = 0; // the look-up of the family
  call(open);
};

/** By the names of the vectors: our call for the same thing. */
const CALLS: Record<string, (transport: FakeTransport) => void> = {
  "gre": gre(GRE),
  "gre, any local address, TTL inherited, nopmtudisc, tos, device": gre({
    remote: ip("192.0.2.2"),
    ttl: 0,
    tos: 0x10,
    pmtudisc: false,
    device: LO,
  }),
  "gre, keys": gre({ ...GRE, ikey: 1, okey: 3735928559 }),
  "gre, fou, source port per flow, checksum": gre({
    ...GRE,
    ikey: 42,
    okey: 42,
    encap: { type: "fou", sport: 0, dport: 7777, csum: true },
  }),
  "gre, gue, both ports, no checksum": gre({
    ...GRE,
    encap: { type: "gue", sport: 7777, dport: 8888, csum: false },
  }),
  "gre, mtu, up": rtnl((r) =>
    r.createLink({ name: "g0", kind: "gre", tunnel: GRE, mtu: 1468, up: true })
  ),
  "gre, csum, seq": gre({ ...GRE, csum: "both", seq: "out" }),
  "gretap, fou, checksum": tunnel("gretap", {
    ...GRE,
    encap: { type: "fou", sport: 1, dport: 2, csum: true },
  }),
  "ipip, gue": tunnel("ipip", {
    ...GRE,
    tos: 1,
    encap: { type: "gue", sport: 0, dport: 2, csum: false },
  }),
  "sit, device": tunnel("sit", { ...GRE, ttl: 0, pmtudisc: false, device: LO }),
  "ip6gre, keys, encapsulation limit": tunnel("ip6gre", {
    ...GRE6,
    ikey: 1,
    okey: 2,
    tos: 0x20,
    flowLabel: 0x12345,
    encapLimit: 4,
  }),
  "ip6gretap, fou, checksum": tunnel("ip6gretap", {
    ...GRE6,
    csum: "both",
    encap: { type: "fou", sport: 0, dport: 2, csum: true },
  }),
  "ip6tnl, gue, device": tunnel("ip6tnl", {
    ...GRE6,
    payload: "ipv4",
    tos: 1,
    device: LO,
    encap: { type: "gue", sport: 1, dport: 2, csum: false },
  }),
  "veth": rtnl((r) => r.createLink({ name: "v0", kind: "veth", peerName: "v1" })),
  "bridge": rtnl((r) => r.createLink({ name: "v0", kind: "bridge" })),
  "dummy": rtnl((r) => r.createLink({ name: "v0", kind: "dummy" })),
  "link up": rtnl((r) => r.changeLink(V0, { up: true })),
  "link down": rtnl((r) => r.changeLink(V0, { up: false })),
  "link mtu": rtnl((r) => r.changeLink(V0, { mtu: 1400 })),
  "link alias": rtnl((r) => r.changeLink(V0, { alias: "mine" })),
  "link name": rtnl((r) => r.changeLink(V0, { name: "w0" })),
  "link master": rtnl((r) => r.changeLink(4, { master: V0 })),
  "link nomaster": rtnl((r) => r.changeLink(V0, { master: 0 })),
  "link del": rtnl((r) => r.deleteLink(V0)),
  "link by name": rtnl((r) => r.link("v0")),
  "links": rtnl((r) => r.links()),
  "address": rtnl((r) =>
    r.addAddress({
      ifindex: V0,
      local: ip("10.0.0.1"),
      prefixLength: 24,
      broadcast: ip("10.0.0.255"),
    })
  ),
  "address with peer": rtnl((r) =>
    r.addAddress({
      ifindex: V0,
      local: ip("100.64.0.1"),
      peer: ip("100.64.0.2"),
      prefixLength: 32,
    })
  ),
  "address, IPv6": rtnl((r) =>
    r.addAddress({ ifindex: V0, local: ip("2001:db8::1"), prefixLength: 64 })
  ),
  "address del": rtnl((r) =>
    r.deleteAddress({ ifindex: V0, local: ip("10.0.0.1"), prefixLength: 24 })
  ),
  "addresses": rtnl((r) => r.addresses()),
  "route by device": rtnl((r) =>
    r.addRoute({ destination: parseCidr("198.51.100.0/24"), device: V0 })
  ),
  "route by gateway": rtnl((r) =>
    r.addRoute({
      destination: parseCidr("198.51.100.0/24"),
      gateway: ip("10.0.0.2"),
      device: V0,
      source: ip("10.0.0.1"),
    })
  ),
  "default route": rtnl((r) =>
    r.addRoute({ destination: parseCidr("0.0.0.0/0"), gateway: ip("10.0.0.2") })
  ),
  "route, IPv6": rtnl((r) => r.addRoute({ destination: parseCidr("2001:db8:1::/48"), device: V0 })),
  "route del": rtnl((r) =>
    r.deleteRoute({ destination: parseCidr("198.51.100.0/24"), device: V0 })
  ),
  "route lookup": rtnl((r) => r.routeTo(ip("10.0.0.2"))),
  "routes": rtnl((r) => r.routes()),
  "fou family": (transport) => Fou.open(transport)[Symbol.dispose](),
  "fou add": fou((f) => f.add({ port: 7777, family: 4, type: "direct", ipproto: 47 })),
  "fou add, local and peer": fou((f) =>
    f.add({
      port: 7777,
      family: 4,
      type: "direct",
      ipproto: 4,
      local: ip("192.0.2.1"),
      peer: ip("192.0.2.2"),
      peerPort: 9,
    })
  ),
  "fou add, IPv6, device": fou((f) =>
    f.add({
      port: 7777,
      family: 6,
      type: "direct",
      ipproto: 47,
      local: ip("2001:db8::1"),
      ifindex: LO,
    })
  ),
  "fou add, gue": fou((f) => f.add({ port: 7778, family: 4, type: "gue" })),
  "fou del": fou((f) => f.delete({ port: 7777, family: 4 })),
  "fou show": fou((f) => f.ports()),
};

/** Takes everything, and knows the fou family. */
const obliging: FakeKernel = (r) => {
  if ((r.flags & NLM_F_DUMP) === NLM_F_DUMP) return [done(r)];
  if (r.type === GENL_ID_CTRL) {
    const family = encodeAttrs([attr.u16(1, FOU_FAMILY)]);
    return [reply(r, { payload: concatBytes(new Uint8Array(4), family) }), ack(r)];
  }
  const hasReply = r.type === RTM_GETLINK || r.type === RTM_GETROUTE;
  const payload = new Uint8Array(headerLength(r.type));
  return hasReply ? [reply(r, { payload }), ack(r)] : [ack(r)];
};

// --- requests as values by path

/** Values as hex, by a path of attribute types: "18/2/6" is IFLA_LINKINFO, INFO_DATA, GRE_LOCAL. */
type Fields = Record<string, string>;

const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFINFO_LENGTH = 16;
/** `struct genlmsghdr`. */
const GENL_HEADER_LENGTH = 4;

/** Of `struct ifinfomsg`, `ifaddrmsg` and `rtmsg`. */
function headerLength(type: number): number {
  if (type < 20) return IFINFO_LENGTH;
  return type < 24 ? 8 : 12;
}

function fieldsOf({ type, flags, payload }: NetlinkReply, isGeneric: boolean): Fields {
  const length = isGeneric ? GENL_HEADER_LENGTH : headerLength(type);
  return {
    type: String(type),
    flags: `0x${flags.toString(16)}`,
    header: toHex(payload.subarray(0, length)),
    ...attrFields("", payload.subarray(length)),
  };
}

function attrFields(parent: string, bytes: Uint8Array): Fields {
  const kind = value.string(decodeAttrs(bytes).get(IFLA_INFO_KIND));
  const fields: Fields = {};
  for (const { type, value } of decodeAttrList(bytes)) {
    const path = `${parent}${type}`;
    if (path === `${IFLA_LINKINFO}`) Object.assign(fields, attrFields(`${path}/`, value));
    // ip sends the name of a kind without its final NUL; the kernel takes either.
    else if (path === `${IFLA_LINKINFO}/${IFLA_INFO_KIND}`) fields[path] = kind!;
    else if (path === `${IFLA_LINKINFO}/${IFLA_INFO_DATA}`) {
      Object.assign(
        fields,
        kind === "veth" ? peerFields(path, value) : attrFields(`${path}/`, value),
      );
    } else fields[path] = toHex(value);
  }
  return fields;
}

/** The one attribute of a veth's data is a whole link: header, then attributes. */
function peerFields(parent: string, bytes: Uint8Array): Fields {
  const peer = decodeAttrs(bytes).get(VETH_INFO_PEER)!;
  const path = `${parent}/${VETH_INFO_PEER}`;
  return {
    [path]: toHex(peer.subarray(0, IFINFO_LENGTH)),
    ...attrFields(`${path}/`, peer.subarray(IFINFO_LENGTH)),
  };
}

type Differences = Record<string, [ip: string | undefined, ours: string | undefined]>;

function differences(ip: Fields, ours: Fields): Differences {
  const paths = [...new Set([...Object.keys(ip), ...Object.keys(ours)])];
  return Object.fromEntries(
    paths.filter((path) => ip[path] !== ours[path]).map((path) => [path, [ip[path], ours[path]]]),
  );
}

// --- what differs on purpose

/** ip names a firewall mark of 0, which is the default. */
const FWMARK: Differences = { "18/2/20": ["00000000", undefined] };
/** ip names a device of 0, which is none. */
const DEVICE: Differences = { "18/2/1": ["00000000", undefined] };
/** Of another kind, which has ip6gre's attributes. */
const ERSPAN: Differences = { "18/2/22": ["01", undefined] };
/** We want an ack behind every reply: it is where a request ends. */
const ACK: Differences = { flags: ["0x1", "0x5"] };
/** ip asks for links as AF_PACKET, which is what AF_UNSPEC gets too, with their virtual functions. */
const LINK_FILTER: Differences = {
  header: ["11" + "00".repeat(15), "00".repeat(16)],
  "29": ["01000000", undefined],
};

const EXPECTED: Record<string, Differences> = {
  "gre": FWMARK,
  "gre, any local address, TTL inherited, nopmtudisc, tos, device": {
    ...FWMARK,
    // We say "any local address" instead of leaving it out: a change resets it then.
    "18/2/6": [undefined, "00000000"],
  },
  "gre, keys": FWMARK,
  "gre, fou, source port per flow, checksum": FWMARK,
  "gre, gue, both ports, no checksum": FWMARK,
  "gre, mtu, up": FWMARK,
  "gre, csum, seq": FWMARK,
  "gretap, fou, checksum": FWMARK,
  "ipip, gue": { ...FWMARK, ...DEVICE },
  // ISATAP, off.
  "sit, device": { ...FWMARK, "18/2/8": ["0000", undefined] },
  "ip6gre, keys, encapsulation limit": {
    ...FWMARK,
    ...ERSPAN,
    // ip names the checksum where there is no encapsulation, too.
    "18/2/15": ["0200", "0000"],
  },
  // A limit that the flag beside it makes ignored.
  "ip6gretap, fou, checksum": { ...FWMARK, ...ERSPAN, "18/2/11": ["04", "00"] },
  "ip6tnl, gue, device": { ...FWMARK, "18/2/6": ["04", "00"] },
  "link by name": { ...ACK, ...LINK_FILTER },
  "links": LINK_FILTER,
  // ip deletes a route of any scope and type, we the one that we add: link scope, unicast.
  "route del": { header: ["02180000fe04ff0000000000", "02180000fe04fd0100000000"] },
  // ip wants the table of the route named (RTM_F_LOOKUP_TABLE).
  "route lookup": { ...ACK, header: ["022000000000000000100000", "022000000000000000000000"] },
  // ip asks for one family and table; we take both families and choose the table ourselves.
  "routes": { header: ["02" + "00".repeat(11), "00".repeat(12)], "15": ["fe000000", undefined] },
  // The kernel does not look at the version of a look-up.
  "fou family": { ...ACK, header: ["03000000", "03010000"] },
  // The kernel finds a port without its type.
  "fou del": { "4": ["01", undefined] },
};

Deno.test("every recorded request has its call, and every call its request", () => {
  deepStrictEqual(Object.keys(CALLS), vectors.requests.map(({ name }) => name));
});

for (const { name, command, hex } of vectors.requests) {
  Deno.test(`as \`${command}\`: ${name}`, () => {
    const transport = new FakeTransport(obliging);
    CALLS[name]!(transport);
    const isGeneric = name.startsWith("fou");
    const [recorded] = decodeMessages(fromHex(hex));
    const ip = fieldsOf(recorded!, isGeneric);
    const ours = fieldsOf(transport.requests[0]!, isGeneric);
    deepStrictEqual(differences(ip, ours), EXPECTED[name] ?? {});
  });
}
