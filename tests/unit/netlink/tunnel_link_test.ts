/** Tunnels of every kind as netlink attributes, there and back. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type Ip, parseIp } from "../../../lib/addr.ts";
import { RtNetlink, type Tunnel, TUNNEL_KINDS, type TunnelKind } from "../../../lib/netlink.ts";
import { attr, encodeAttrs } from "../../../lib/netlink/attr.ts";
import {
  decodeTunnel,
  encodeTunnel,
  isTunnelKind,
  outerFamily,
} from "../../../lib/netlink/tunnel_link.ts";
import { FakeTransport, linkKernel } from "../../fakes/kernel.ts";

const GRE_KINDS = ["gre", "gretap", "ip6gre", "ip6gretap"];
const ip = (kind: TunnelKind, last: number): Ip =>
  parseIp(outerFamily(kind) === 4 ? `192.0.2.${last}` : `2001:db8::${last}`);

/** The least that is read back of each kind. */
function plain(kind: TunnelKind): Tunnel {
  const payload = { ipip: "ipv4", sit: "ipv6", ip6tnl: "ipv6" }[kind as string];
  return {
    remote: ip(kind, 2),
    ttl: 64,
    tos: 0,
    pmtudisc: true,
    ...(payload ? { payload: payload as "ipv4" | "ipv6" } : {}),
  };
}

const roundTrip = (kind: TunnelKind, tunnel: Tunnel) =>
  decodeTunnel(kind, encodeAttrs(encodeTunnel(kind, tunnel)));

const SETTINGS: [string, Partial<Tunnel>, (kind: TunnelKind) => boolean][] = [
  ["nothing more", {}, () => true],
  ["TTL and TOS of the inner packet", { ttl: 0, tos: 1 }, () => true],
  ["TOS, device", { tos: 0xb8, device: 9 }, () => true],
  ["fragments allowed", { pmtudisc: false }, (kind) => outerFamily(kind) === 4],
  ["keys", { ikey: 0, okey: 0xffffffff }, (kind) => GRE_KINDS.includes(kind)],
  ["one key", { okey: 7 }, (kind) => GRE_KINDS.includes(kind)],
  ["checksums, sequence numbers", { csum: "both", seq: "both" }, (k) => GRE_KINDS.includes(k)],
  ["one direction each", { csum: "in", seq: "out" }, (kind) => GRE_KINDS.includes(kind)],
  ["any payload", { payload: "any" }, (kind) => !GRE_KINDS.includes(kind)],
  ["IPv4 inside", { payload: "ipv4" }, (kind) => !GRE_KINDS.includes(kind)],
  ["IPv6's own", { encapLimit: 4, flowLabel: 0xfffff }, (kind) => outerFamily(kind) === 6],
  ["FOU", { encap: { type: "fou", sport: 0, dport: 65535, csum: true } }, () => true],
  ["GUE", { encap: { type: "gue", sport: 1, dport: 2, csum: false } }, () => true],
];

for (const [name, settings, applies] of SETTINGS) {
  Deno.test(`decodeTunnel() reads what encodeTunnel() wrote: ${name}`, () => {
    for (const kind of TUNNEL_KINDS.filter(applies)) {
      const tunnel = { ...plain(kind), local: ip(kind, 1), ...settings };
      deepStrictEqual(roundTrip(kind, tunnel), tunnel, kind);
    }
  });
}

Deno.test("decodeTunnel() of no attributes: the kernel's defaults", () => {
  for (const kind of TUNNEL_KINDS) {
    const any = parseIp(outerFamily(kind) === 4 ? "0.0.0.0" : "::");
    const { remote, ttl, local, encap } = decodeTunnel(kind, new Uint8Array());
    deepStrictEqual({ remote, ttl, local, encap }, {
      remote: any,
      ttl: 0,
      local: undefined,
      encap: undefined,
    });
  }
});

Deno.test("decodeTunnel() passes over encapsulations and payloads that it does not know", () => {
  const MPLS = 3;
  const data = encodeAttrs([attr.u16(15, MPLS), attr.u8(9, 137)]);
  const { encap, payload } = decodeTunnel("ipip", data);
  deepStrictEqual([encap, payload], [undefined, undefined]);
});

Deno.test("RtNetlink makes and reads tunnels of every kind", () => {
  using rtnl = RtNetlink.open(new FakeTransport(linkKernel()));
  for (const kind of TUNNEL_KINDS) {
    const tunnel = { ...plain(kind), local: ip(kind, 1) };
    const link = rtnl.link(rtnl.createLink({ name: `t-${kind}`, kind, tunnel, mtu: 1400 }))!;
    deepStrictEqual([link.kind, link.mtu, link.tunnel], [kind, 1400, tunnel]);
  }
});

Deno.test("isTunnelKind() knows the kinds", () => {
  for (const kind of TUNNEL_KINDS) strictEqual(isTunnelKind(kind), true);
  for (const kind of ["veth", "erspan", "", undefined]) strictEqual(isTunnelKind(kind), false);
});
