/**
 * Records into netlink.json what `ip` of iproute2 sends: each command in a network namespace of
 * its own, under strace. The request is sent even where the kernel lacks the module and refuses it.
 *
 * Run as root, with iproute2, strace and gcc: deno run -A tests/vectors/record_netlink.ts
 */
import { fromHex, Reader, toHex } from "../../lib/bytes.ts";

const HERE = import.meta.dirname!;
const RTM = { NEWLINK: 16, DELLINK: 17, GETLINK: 18, NEWADDR: 20, DELADDR: 21, GETADDR: 22 };
const RTM_ROUTE = { NEW: 24, DEL: 25, GET: 26 };
const GENL_ID_CTRL = 16;
/** As in fou_family.c. */
const FOU_FAMILY = 29;

/** The bridge v0 is ifindex 2, behind the loopback. */
const V0 = ["ip link add v0 type bridge"];
const V0_UP = [...V0, "ip link set v0 up", "ip addr add 10.0.0.1/24 dev v0"];
const GRE = "ip link add g0 type gre local 192.0.2.1 remote 192.0.2.2 ttl 64";
const GRE6 = "ip link add g0 type ip6gre local 2001:db8::1 remote 2001:db8::2 hoplimit 64";

interface Recording {
  name: string;
  setup?: string[];
  command: string;
  /** nlmsg_type of the request that is meant, as ip looks up names before. */
  type: number;
}

const RECORDINGS: Recording[] = [
  { name: "gre", command: GRE, type: RTM.NEWLINK },
  {
    name: "gre, any local address, TTL inherited, nopmtudisc, tos, device",
    type: RTM.NEWLINK,
    command: "ip link add g0 type gre remote 192.0.2.2 nopmtudisc tos 0x10 dev lo",
  },
  { name: "gre, keys", command: `${GRE} ikey 1 okey 3735928559`, type: RTM.NEWLINK },
  {
    name: "gre, fou, source port per flow, checksum",
    type: RTM.NEWLINK,
    command: `${GRE} key 42 encap fou encap-sport auto encap-dport 7777 encap-csum`,
  },
  {
    name: "gre, gue, both ports, no checksum",
    type: RTM.NEWLINK,
    command: `${GRE} encap gue encap-sport 7777 encap-dport 8888 noencap-csum`,
  },
  { name: "gre, mtu, up", type: RTM.NEWLINK, command: GRE.replace("add g0", "add g0 mtu 1468 up") },
  { name: "gre, csum, seq", command: `${GRE} csum oseq`, type: RTM.NEWLINK },
  {
    name: "gretap, fou, checksum",
    type: RTM.NEWLINK,
    command: `${GRE.replace("type gre", "type gretap")} encap fou encap-sport 1 encap-dport 2 ` +
      "encap-csum",
  },
  {
    name: "ipip, gue",
    type: RTM.NEWLINK,
    command: `${GRE.replace("type gre", "type ipip mode ipip")} tos inherit encap gue ` +
      "encap-sport auto encap-dport 2",
  },
  {
    name: "sit, device",
    type: RTM.NEWLINK,
    command: `${
      GRE.replace("type gre", "type sit mode ip6ip").replace("64", "0")
    } nopmtudisc dev lo`,
  },
  {
    name: "ip6gre, keys, encapsulation limit",
    type: RTM.NEWLINK,
    command: `${GRE6} ikey 1 okey 2 tclass 0x20 flowlabel 0x12345 encaplimit 4`,
  },
  {
    name: "ip6gretap, fou, checksum",
    type: RTM.NEWLINK,
    command: `${GRE6.replace("type ip6gre", "type ip6gretap")} encaplimit none csum encap fou ` +
      "encap-sport auto encap-dport 2 noencap-csum encap-udp6-csum",
  },
  {
    name: "ip6tnl, gue, device",
    type: RTM.NEWLINK,
    command: `${GRE6.replace("type ip6gre", "type ip6tnl mode ipip6")} tclass inherit ` +
      "encaplimit none dev lo encap gue encap-sport 1 encap-dport 2 noencap-csum noencap-udp6-csum",
  },
  { name: "veth", command: "ip link add v0 type veth peer name v1", type: RTM.NEWLINK },
  { name: "bridge", command: "ip link add v0 type bridge", type: RTM.NEWLINK },
  { name: "dummy", command: "ip link add v0 type dummy", type: RTM.NEWLINK },
  { name: "link up", setup: V0, command: "ip link set v0 up", type: RTM.NEWLINK },
  { name: "link down", setup: V0, command: "ip link set v0 down", type: RTM.NEWLINK },
  { name: "link mtu", setup: V0, command: "ip link set v0 mtu 1400", type: RTM.NEWLINK },
  { name: "link alias", setup: V0, command: "ip link set v0 alias mine", type: RTM.NEWLINK },
  { name: "link name", setup: V0, command: "ip link set v0 name w0", type: RTM.NEWLINK },
  {
    name: "link master",
    setup: [...V0, "ip link add d0 type veth peer name d1"],
    command: "ip link set d0 master v0",
    type: RTM.NEWLINK,
  },
  { name: "link nomaster", setup: V0, command: "ip link set v0 nomaster", type: RTM.NEWLINK },
  { name: "link del", setup: V0, command: "ip link del v0", type: RTM.DELLINK },
  { name: "link by name", setup: V0, command: "ip link show v0", type: RTM.GETLINK },
  { name: "links", command: "ip link show", type: RTM.GETLINK },
  {
    name: "address",
    setup: V0,
    type: RTM.NEWADDR,
    command: "ip addr add 10.0.0.1/24 broadcast 10.0.0.255 dev v0",
  },
  {
    name: "address with peer",
    setup: V0,
    type: RTM.NEWADDR,
    command: "ip addr add 100.64.0.1 peer 100.64.0.2/32 dev v0",
  },
  {
    name: "address, IPv6",
    setup: V0,
    type: RTM.NEWADDR,
    command: "ip addr add 2001:db8::1/64 dev v0 nodad",
  },
  {
    name: "address del",
    setup: V0_UP,
    type: RTM.DELADDR,
    command: "ip addr del 10.0.0.1/24 dev v0",
  },
  { name: "addresses", command: "ip addr show", type: RTM.GETADDR },
  {
    name: "route by device",
    setup: V0_UP,
    type: RTM_ROUTE.NEW,
    command: "ip route add 198.51.100.0/24 dev v0 proto static",
  },
  {
    name: "route by gateway",
    setup: V0_UP,
    type: RTM_ROUTE.NEW,
    command: "ip route add 198.51.100.0/24 via 10.0.0.2 dev v0 src 10.0.0.1 proto static",
  },
  {
    name: "default route",
    setup: V0_UP,
    type: RTM_ROUTE.NEW,
    command: "ip route add default via 10.0.0.2 proto static",
  },
  {
    name: "route, IPv6",
    setup: V0_UP,
    type: RTM_ROUTE.NEW,
    command: "ip route add 2001:db8:1::/48 dev v0 proto static",
  },
  {
    name: "route del",
    setup: [...V0_UP, "ip route add 198.51.100.0/24 dev v0"],
    type: RTM_ROUTE.DEL,
    command: "ip route del 198.51.100.0/24 dev v0 proto static",
  },
  { name: "route lookup", setup: V0_UP, command: "ip route get 10.0.0.2", type: RTM_ROUTE.GET },
  { name: "routes", command: "ip route show", type: RTM_ROUTE.GET },
  { name: "fou family", command: "ip fou show", type: GENL_ID_CTRL },
  { name: "fou add", command: "ip fou add port 7777 ipproto 47", type: FOU_FAMILY },
  {
    name: "fou add, local and peer",
    type: FOU_FAMILY,
    command: "ip fou add port 7777 ipproto 4 local 192.0.2.1 peer 192.0.2.2 peer_port 9",
  },
  {
    name: "fou add, IPv6, device",
    type: FOU_FAMILY,
    command: "ip -6 fou add port 7777 ipproto 47 local 2001:db8::1 dev lo",
  },
  { name: "fou add, gue", command: "ip fou add port 7778 gue", type: FOU_FAMILY },
  { name: "fou del", command: "ip fou del port 7777", type: FOU_FAMILY },
  { name: "fou show", command: "ip fou show", type: FOU_FAMILY },
];

/** All messages that the command sent, from strace's hex dump of what was written. */
async function record({ setup = [], command }: Recording, dir: string): Promise<Uint8Array[]> {
  const preload = /^ip (-6 )?fou /.test(command) ? `-E LD_PRELOAD=${dir}/fou_family.so ` : "";
  const trace = "timeout 10 strace -qq -e trace=sendmsg,sendto -e write=3,4,5 ";
  const script = [...setup, `${trace}${preload}-o ${dir}/trace ${command}`].join(" && ");
  await new Deno.Command("unshare", { args: ["-n", "sh", "-c", script], stderr: "null" }).output();
  const messages: string[] = [];
  for (const line of (await Deno.readTextFile(`${dir}/trace`)).split("\n")) {
    const [, offset, hex] = /^ \| ([0-9a-f]{5}) {2}([0-9a-f ]{48})/.exec(line) ?? [];
    if (offset === "00000") messages.push(hex!);
    else if (offset !== undefined) messages[messages.length - 1] += hex!;
  }
  return messages.map(fromHex);
}

const typeOf = (message: Uint8Array) => new Reader(message, "host").skip(4).u16();

/** With the sequence number, which is the time, as 0, and without what some dumps send behind it. */
async function requestOf(recording: Recording, dir: string): Promise<string> {
  const messages = await record(recording, dir);
  const request = messages.findLast((message) => typeOf(message) === recording.type);
  if (!request) throw new Error(`${recording.command} sent no request of type ${recording.type}`);
  const length = new Reader(request, "host").u32();
  return toHex(request.subarray(0, length).fill(0, 8, 12));
}

async function textOf(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(program, { args }).output();
  return new TextDecoder().decode(stdout).trim();
}

const dir = await Deno.makeTempDir();
try {
  const output = `${dir}/fou_family.so`;
  await textOf("gcc", "-shared", "-fPIC", "-o", output, `${HERE}/fou_family.c`, "-ldl");
  const requests = [];
  for (const recording of RECORDINGS) {
    const { name, setup, command, type } = recording;
    requests.push({ name, setup, command, type, hex: await requestOf(recording, dir) });
  }
  const vectors = {
    about: "requests of iproute2's ip, recorded by record_netlink.ts; sequence numbers as 0",
    version: await textOf("ip", "-V"),
    byte_order: "little",
    requests,
  };
  await Deno.writeTextFile(`${HERE}/netlink.json`, JSON.stringify(vectors, null, 2) + "\n");
} finally {
  await Deno.remove(dir, { recursive: true });
}
