/** Which links are tunnels, whoever made them. */
import { strictEqual } from "node:assert/strict";
import { isTunnelDevice } from "../../../lib/links/mod.ts";

Deno.test("isTunnelDevice() goes by the kind, and by our mark", () => {
  const tunnels = "gre gretap ip6gre ip6gretap erspan ip6erspan ipip sit ip6tnl vti vti6 xfrm " +
    "wireguard tun vxlan geneve bareudp gtp";
  for (const kind of tunnels.split(" ")) strictEqual(isTunnelDevice({ kind }), true, kind);
  const ways = "veth bridge bond team vlan macvlan ipvlan dummy ppp rmnet wwan vrf macsec";
  for (const kind of ways.split(" ")) strictEqual(isTunnelDevice({ kind }), false, kind);
  strictEqual(isTunnelDevice({}), false);
  strictEqual(isTunnelDevice({ kind: "bridge", alias: "gretun hub port 1 client x" }), true);
  strictEqual(isTunnelDevice({ alias: "uplink" }), false);
});
