/**
 * What links of the kernel plane cost beside the same made by hand with ip, and beside kernel
 * WireGuard. In the emulated machine time is instructions, so ratios are of instructions. See
 * README.md. Needs root and a kernel with FOU and GRE.
 */
import { hostCidr, type Ip, parseIp } from "../lib/addr.ts";
import { GreCodec, openPlane } from "../lib/dataplane/mod.ts";
import { DISCO_PATTERN } from "../lib/disco/mod.ts";
import { silentLog, systemClock } from "../lib/edges.ts";
import { errorText } from "../lib/errors.ts";
import { type Host, linuxHost } from "../lib/host/mod.ts";
import { type Host as LabHost, Lab } from "../tests/lab/mod.ts";
import { pairAddress } from "../lib/links/mod.ts";
import { NftError } from "../lib/nft/mod.ts";
import { BINDING_PATTERN } from "../lib/stun/mod.ts";
import { parseFlags } from "../lib/cli/flags.ts";

const FLAGS = {
  megabytes: { type: "integer", min: 1, max: 1000, default: 64, help: "sent in each run" },
  rounds: { type: "integer", min: 1, max: 20, default: 3, help: "in turns; medians are printed" },
} as const;
const PORT = 7777;
const OTHER_PORT = 7778;
const [A, B] = [parseIp("100.64.0.1"), parseIp("100.64.0.2")];
const NOBODY = parseIp("100.64.0.3");
const EOPNOTSUPP = 95;

/** Private ones, of these hosts alone. */
const KEYS = ["A", "B"].map((letter) => `${letter.repeat(42)}0=`);

const real = linuxHost();

/** This machine as if its kernel had no nf_tables, as far as a plane sees. */
const withoutNft: Host = {
  ...real,
  openNft: () => {
    throw new NftError("open nf_tables", EOPNOTSUPP);
  },
};

/** Where one end of a tunnel is made. */
interface End {
  host: LabHost;
  far: LabHost;
  isFirst: boolean;
  /** Ends what has to be ended before the namespace goes. */
  stack: AsyncDisposableStack;
}

const SYSTEMS: [name: string, make: (end: End) => void | Promise<void>][] = [
  ["by hand", (end) => byHand(end, PORT)],
  ["by hand, a daemon beside", besidePlane],
  ["by up", (end) => plane(end, real, end.isFirst ? B : A)],
  ["by up, no guard", (end) => plane(end, withoutNft, end.isFirst ? B : A)],
  ["WireGuard", wireguard],
];

/** Keys and port are not those of a link beside it. */
async function byHand({ host, far, isFirst }: End, port: number): Promise<void> {
  const [own, peer] = isFirst ? [A, B] : [B, A];
  const [ikey, okey] = isFirst ? [port, port + 1] : [port + 1, port];
  await shell(
    host,
    `modprobe fou; ip fou add port ${port} ipproto 47
    ip link add bench0 mtu 1464 type gre remote ${far.ip} ttl 64 pmtudisc ikey ${ikey} okey ${okey} \
      encap fou encap-sport ${port} encap-dport ${port} noencap-csum
    ip address add ${own} peer ${peer} dev bench0; ip link set bench0 up`,
  );
}

async function besidePlane(end: End): Promise<void> {
  plane(end, real, NOBODY);
  await byHand(end, OTHER_PORT);
}

/** A link to that address inside. */
function plane({ host: node, far, isFirst, stack }: End, host: Host, peer: Ip): void {
  node.within(() => {
    const plane = stack.use(openPlane(
      { wanted: "fou", codec: () => new GreCodec() },
      {
        ...{ role: "up", port: PORT, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
        ...{
          encapCsum: "off",
          signalling: { kind: "patterns", any: [DISCO_PATTERN, BINDING_PATTERN] },
        },
        onDatagram: () => {},
        onFault: (what, error) => {
          if (!(error instanceof NftError)) console.log(`${what}: ${errorText(error)}`);
        },
      },
      { host, clock: systemClock, log: silentLog },
    ));
    const own = isFirst ? A : B;
    plane.setLink({
      ...{ id: "peer", remote: { ip: far.ip, port: PORT } },
      ...{ addresses: [pairAddress(own, peer)], routes: [] },
      ...{ sources: [hostCidr(peer)], destinations: [hostCidr(own)] },
      keys: { kind: "gre", ikey: isFirst ? 1 : 2, okey: isFirst ? 2 : 1 },
    });
  });
}

async function wireguard({ host, far, isFirst }: End): Promise<void> {
  const [own, peer] = isFirst ? [A, B] : [B, A];
  const [ownKey, farKey] = isFirst ? KEYS : KEYS.toReversed();
  await shell(
    host,
    `ip link add bench0 mtu 1440 type wireguard
    key=$(mktemp); echo ${ownKey} >$key
    wg set bench0 listen-port ${PORT} private-key $key \
      peer $(echo ${farKey} | wg pubkey) endpoint ${far.ip}:${PORT} allowed-ips ${peer}
    rm $key
    ip address add ${own} peer ${peer} dev bench0; ip link set bench0 up`,
  );
}

async function shell(host: LabHost, commands: string): Promise<void> {
  const { code, stderr } = await host.run("sh", ["-ec", commands]);
  if (code !== 0) throw new Error(`${commands}: ${stderr}`);
}

async function mbits(make: (typeof SYSTEMS)[number][1], megabytes: number): Promise<number> {
  await using lab = Lab.create({ prefix: `gretun-bench-${Deno.pid}-` });
  await using stack = new AsyncDisposableStack();
  // Side by side: routers between them would be part of the figure.
  const behind = lab.nat("router");
  const [a, b] = [lab.host("a", { behind }), lab.host("b", { behind })];
  await make({ host: a, far: b, isFirst: true, stack });
  await make({ host: b, far: a, isFirst: false, stack });
  const server = a.spawn("iperf3", ["-s", "-1", "-B", A]);
  await systemClock.sleep(1_000);
  const { stdout } = await b.run("iperf3", ["-c", A, "-n", `${megabytes}M`, "-J"]);
  await server.status;
  return JSON.parse(stdout).end.sum_received.bits_per_second / 1e6;
}

const flags = parseFlags(Deno.args, FLAGS);
const found = SYSTEMS.map(([name, make]) => ({ name, make, rates: [] as number[] }));
for (let i = 0; i < flags.rounds; i++) {
  for (const { name, make, rates } of found) {
    const rate = await mbits(make, flags.megabytes);
    console.log(`${name}: ${rate.toFixed(0)} Mbit/s`);
    rates.push(rate);
  }
}
await real[Symbol.asyncDispose]();

const median = (list: number[]) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]!;
console.log("\nMedians, and times those of links by hand:");
const byHandRate = median(found[0]!.rates);
for (const { name, rates } of found) {
  const rate = median(rates);
  console.log(
    `${name.padEnd(26)} ${rate.toFixed(0)} Mbit/s  ${(rate / byHandRate).toFixed(3)}`,
  );
}
