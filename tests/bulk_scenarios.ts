/** Much data at once: it arrives whole, whichever planes the two ends have. */
import { ok, strictEqual } from "node:assert/strict";
import { createHash } from "node:crypto";
import { iperfServer, Overlay, type OverlayNode, until } from "./overlay.ts";
import { twoNodes } from "./up_scenarios.ts";

const MEGABYTE = 1_000_000;
const HTTP_PORT = 8080;
const SSH_PORT = 2222;

type Planes = readonly [string, string];

/** So many random megabytes, as far as they repeat; the same each time. */
function* blocksOf(
  seed: Uint8Array<ArrayBuffer>,
  megabytes: number,
): Generator<Uint8Array<ArrayBuffer>> {
  for (let i = 0; i < megabytes; i++) {
    const block = seed.slice();
    block[i]! ^= 0x55;
    yield block;
  }
}

function randomBlock(): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(MEGABYTE);
  for (let at = 0; at < block.length; at += 62_500) {
    crypto.getRandomValues(block.subarray(at, at + 62_500));
  }
  return block;
}

/** By HTTP; with `ssh` by that, too. Then iperf3 both ways at once. */
export function testBulk(
  planes: Planes,
  { megabytes, ssh = false }: { megabytes: number; ssh?: boolean },
): void {
  const name = `${planes.join(" and ")}: ${megabytes} MB by HTTP${ssh ? " and by SSH" : ""}`;
  Deno.test(`${name} arrive whole, and streams both ways at once`, async () => {
    await using overlay = await Overlay.start();
    const [alice, bob] = await twoNodes(overlay, planes);
    const block = randomBlock();
    const blocks = () => blocksOf(block, megabytes);
    const hash = createHash("sha256");
    for (const block of blocks()) hash.update(block);
    const digest = hash.digest("hex");
    const arrived = async (command: string) => {
      const startMs = performance.now();
      const { code, stdout, stderr } = await alice.host
        .run("sh", ["-c", `${command} | sha256sum`]);
      strictEqual(code, 0, `${stderr}\n${alice.log}\n${bob.log}`);
      strictEqual(stdout.slice(0, 64), digest, stderr);
      const seconds = (performance.now() - startMs) / 1000;
      console.log(`${command.split(" ")[0]}: ${megabytes} MB in ${seconds.toFixed(1)} s`);
    };
    const ip = await bob.tunnelIp();
    await using _server = serve(bob, ip, blocks);
    await arrived(`curl -sf http://${ip}:${HTTP_PORT}/`);
    if (ssh) {
      const path = `${overlay.directory}/file`;
      await Deno.writeFile(path, ReadableStream.from(blocks()));
      await arrived(await sshCommand(overlay, { alice, bob, ip }, `cat ${path}`));
    }

    await iperfServer(bob.host, "-B", ip);
    const bytes = `${Math.ceil(megabytes / 4)}M`;
    const { stdout } = await alice.host.run("iperf3", ["-c", ip, "--bidir", "-n", bytes, "-J"]);
    const { end, error } = JSON.parse(stdout);
    ok(!error, error);
    for (const sum of [end.sum_received, end.sum_received_bidir_reverse]) {
      console.log(`both ways at once: ${(sum.bits_per_second / 1e6).toFixed(0)} Mbit/s`);
      ok(sum.bytes > 0, stdout);
    }
  });
}

function serve(
  { host }: OverlayNode,
  hostname: string,
  blocks: () => Iterable<Uint8Array>,
): AsyncDisposable {
  const options = { hostname, port: HTTP_PORT, onListen: () => {} };
  return host.within(() => Deno.serve(options, () => new Response(ReadableStream.from(blocks()))));
}

/** A server with keys of its own on one node, and what reaches it from the other. */
async function sshCommand(
  { directory }: Overlay,
  { alice, bob, ip }: { alice: OverlayNode; bob: OverlayNode; ip: string },
  command: string,
): Promise<string> {
  const key = `${directory}/ssh_key`;
  const { code, stderr } = await alice.host
    .run("sh", ["-ec", `mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f ${key}`]);
  strictEqual(code, 0, stderr);
  const options = [
    ...[`Port=${SSH_PORT}`, `ListenAddress=${ip}`, `HostKey=${key}`, "UsePAM=no", "PidFile=none"],
    ...[`AuthorizedKeysFile=${key}.pub`, "StrictModes=no", "PermitRootLogin=yes"],
  ].flatMap((option) => ["-o", option]);
  bob.host.spawn("/usr/sbin/sshd", ["-D", "-f", "/dev/null", ...options]);
  const ssh = `ssh -q -i ${key} -p ${SSH_PORT} -o StrictHostKeyChecking=no ` +
    `-o UserKnownHostsFile=/dev/null -o BatchMode=yes root@${ip}`;
  await until("sshd", async () => (await alice.host.run("sh", ["-c", `${ssh} true`])).code === 0);
  return `${ssh} '${command}'`;
}
