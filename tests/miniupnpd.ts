/** A home router with port mapping: miniupnpd of Debian in the namespace of a NAT of the lab. */
import { strictEqual } from "node:assert/strict";
import { type Ip, parseCidr, parseIp } from "../lib/addr.ts";
import type { Host, Lab, LabNode, Nat } from "./lab/mod.ts";
import { RtNetlink } from "../lib/netlink.ts";

/** miniupnpd takes no address for real that is set aside, as the lab's are; this one is IANA's own. */
export const PUBLIC_IP = parseIp("192.0.1.1");
const HTTP_PORT = 5000;

export const isMiniupnpdThere = await new Deno.Command("sh", {
  args: ["-c", "command -v miniupnpd"],
}).output().then(({ success }) => success);
if (!isMiniupnpdThere) console.log("no miniupnpd here (apt install miniupnpd-nftables)");

export interface Home {
  lab: Lab;
  nat: Nat;
  alice: Host;
  server: Host;
}

/** Outside, besides its own. */
export function giveAddress(nat: Nat, local: Ip): void {
  using outside = nat.within(() => RtNetlink.open());
  outside.addAddress({ ifindex: outside.link("out")!.ifindex, local, prefixLength: 32 });
}

/** The NAT has it besides its own; the others get a route there. */
export function givePublicIp(nat: Nat, others: readonly LabNode[]): void {
  giveAddress(nat, PUBLIC_IP);
  for (const other of others) {
    using far = other.within(() => RtNetlink.open());
    far.addRoute({ destination: parseCidr(`${PUBLIC_IP}/32`), gateway: nat.ip });
  }
}

export function makeHome(lab: Lab): Home {
  const server = lab.publicHost("server");
  const nat = lab.nat("home");
  const alice = lab.host("alice", { behind: nat });
  givePublicIp(nat, [server]);
  return { lab, nat, alice, server };
}

/** The chains that miniupnpd fills, and leave for what it has mapped to pass the NAT. */
const CHAINS = `
  table inet upnp
  delete table inet upnp
  table inet upnp {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd {}
    chain pre { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
    chain post { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd {}
    chain postrouting_miniupnpd {}
  }
  insert rule ip nat forward ct status dnat accept
`;

export class Miniupnpd implements AsyncDisposable {
  readonly #dir: string;
  readonly #child: Deno.ChildProcess;

  /** `options`: further lines of its configuration. */
  static async start(
    nat: Nat,
    options: string[] = [`ext_ip=${PUBLIC_IP}`, "enable_natpmp=yes"],
  ): Promise<Miniupnpd> {
    const dir = await Deno.makeTempDir();
    const config = [
      "ext_ifname=out",
      "listening_ip=in",
      `http_port=${HTTP_PORT}`,
      "ipv6_disable=yes",
      "enable_upnp=yes",
      "secure_mode=yes",
      "min_lifetime=4",
      "max_lifetime=7200",
      "upnp_table_name=upnp",
      "upnp_nat_table_name=upnp",
      "upnp_forward_chain=miniupnpd",
      "upnp_nat_chain=prerouting_miniupnpd",
      "upnp_nat_postrouting_chain=postrouting_miniupnpd",
      "uuid=00000000-0000-4000-8000-000000000001",
      ...options,
      "allow 1024-65535 10.0.0.0/8 1024-65535",
      "deny 0-65535 0.0.0.0/0 0-65535",
    ];
    await Deno.writeTextFile(`${dir}/conf`, config.join("\n") + "\n");
    const { code, stderr } = await nat.run("nft", [CHAINS]);
    strictEqual(code, 0, stderr);
    const args = ["-d", "-f", `${dir}/conf`, "-P", `${dir}/pid`];
    return new Miniupnpd(
      dir,
      nat.spawn("miniupnpd", args, { stderr: Deno.env.has("MINIUPNPD_LOG") ? "inherit" : "null" }),
    );
  }

  constructor(dir: string, child: Deno.ChildProcess) {
    this.#dir = dir;
    this.#child = child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended by itself
    }
    await this.#child.status;
    await Deno.remove(this.#dir, { recursive: true });
  }
}
