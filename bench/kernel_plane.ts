/**
 * What the guard of a kernel plane costs: two hosts with a link each way, with the guard and without,
 * in turns. In the emulated machine time is instructions, so the ratio is one of instructions. See
 * README.md. Needs root and a kernel with FOU and GRE.
 */
import { hostCidr, parseIp } from "../lib/addr.ts";
import { type DataPlane, GreCodec, openPlane } from "../lib/dataplane/mod.ts";
import { silentLog, systemClock } from "../lib/edges.ts";
import { errorText } from "../lib/errors.ts";
import { type Host, linuxHost } from "../lib/host/mod.ts";
import { type Host as LabHost, Lab } from "../lib/lab/mod.ts";
import { pairAddress } from "../lib/links/mod.ts";
import { NftError } from "../lib/nft/mod.ts";
import { parseFlags } from "../lib/cli/flags.ts";

const FLAGS = {
  megabytes: { type: "integer", min: 1, max: 1000, default: 16, help: "sent in each run" },
  rounds: { type: "integer", min: 1, max: 20, default: 3, help: "in turns; medians are printed" },
} as const;
const PORT = 7777;
const [A, B] = [parseIp("100.64.0.1"), parseIp("100.64.0.2")];
const EOPNOTSUPP = 95;

/** A machine whose kernel has no nf_tables, as far as a plane sees. */
function withoutNft(host: Host): Host {
  return {
    ...host,
    openNft: () => {
      throw new NftError("open nf_tables", EOPNOTSUPP);
    },
  };
}

function openAt(node: LabHost, host: Host, far: LabHost, isFirst: boolean): DataPlane {
  return node.within(() => {
    const plane = openPlane(
      { wanted: "fou", codec: () => new GreCodec() },
      {
        ...{ role: "up", port: PORT, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
        ...{ encapCsum: "off", signalling: { kind: "patterns", any: [] } },
        onDatagram: () => {},
        onFault: (what, error) => console.log(`${what}: ${errorText(error)}`),
      },
      { host, clock: systemClock, log: silentLog },
    );
    const [own, peer] = isFirst ? [A, B] : [B, A];
    plane.setLink({
      ...{ id: "peer", remote: { ip: far.ip, port: PORT } },
      ...{ addresses: [pairAddress(own, peer)], routes: [] },
      ...{ sources: [hostCidr(peer)], destinations: [hostCidr(own)] },
      keys: { kind: "gre", ikey: isFirst ? 1 : 2, okey: isFirst ? 2 : 1 },
    });
    return plane;
  });
}

async function mbits(isGuarded: boolean, megabytes: number): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const lab = stack.use(Lab.create({ prefix: `gretun-bench-${Deno.pid}-` }));
  const real = stack.use(linuxHost());
  const host = isGuarded ? real : withoutNft(real);
  const [a, b] = [lab.publicHost("a"), lab.publicHost("b")];
  stack.use(openAt(a, host, b, true));
  stack.use(openAt(b, host, a, false));
  const server = a.spawn("iperf3", ["-s", "-1", "-B", A]);
  await systemClock.sleep(1_000);
  const { stdout } = await b.run("iperf3", ["-c", A, "-n", `${megabytes}M`, "-J"]);
  await server.status;
  return JSON.parse(stdout).end.sum_received.bits_per_second / 1e6;
}

const flags = parseFlags(Deno.args, FLAGS);
const runs = new Map([[true, [] as number[]], [false, [] as number[]]]);
for (let i = 0; i < flags.rounds; i++) {
  for (const [isGuarded, found] of runs) found.push(await mbits(isGuarded, flags.megabytes));
}
const median = (list: number[]) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]!;
const [guarded, open] = [median(runs.get(true)!), median(runs.get(false)!)];
console.log(`with guard     ${guarded.toFixed(0)} Mbit/s`);
console.log(`without        ${open.toFixed(0)} Mbit/s`);
console.log(`guard costs    ${((open / guarded - 1) * 100).toFixed(1)} % of the time per byte`);
