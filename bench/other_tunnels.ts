/** Tunnels of other programs between two hosts, to measure ours beside them. */
import { type Host, Lab } from "../tests/lab/mod.ts";

export const [HUB_IP, CLIENT_IP] = ["10.90.0.1", "10.90.0.2"];
export const FASTD_PORT = 10_000;
/** What each leaves of 1500: IPv4, UDP and its own header. */
const FASTD_MTU = { "null": 1471, "salsa2012+umac": 1448 };

/** A tunnel from one host to another, with both inner addresses; ends when it is disposed. */
export interface Ends extends AsyncDisposable {
  hub: Host;
  client: Host;
}

/** Two hosts, and a directory that goes with them. */
export class PeerLab implements Ends {
  readonly #lab = Lab.create({ prefix: `gretun-bench-${Deno.pid}-` });
  readonly directory = Deno.makeTempDirSync();
  readonly hub = this.#lab.publicHost("hub");
  readonly client = this.#lab.publicHost("client");

  file(name: string, text: string): string {
    const path = `${this.directory}/${name}`;
    Deno.writeTextFileSync(path, text, { mode: 0o600 });
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab[Symbol.asyncDispose]();
    await Deno.remove(this.directory, { recursive: true });
  }
}

export async function fastd(method: keyof typeof FASTD_MTU): Promise<Ends> {
  const lab = new PeerLab();
  const [hubKeys, clientKeys] = [await fastdKeys(), await fastdKeys()];
  const config = (own: string, peer: string, from: string, to: string, more: string) =>
    `mode tun; interface "bench0"; mtu ${FASTD_MTU[method]}; method "${method}"; secret "${own}";
     log level error; on up "ip address add ${from} peer ${to} dev bench0; ip link set bench0 up";
     ${more.replace("KEY", `key "${peer}";`)}`;
  const hub = config(
    ...[hubKeys.secret, clientKeys.public, HUB_IP, CLIENT_IP] as const,
    `bind any:${FASTD_PORT}; peer "client" { KEY }`,
  );
  const client = config(
    ...[clientKeys.secret, hubKeys.public, CLIENT_IP, HUB_IP] as const,
    `peer "hub" { KEY remote ${lab.hub.ip} port ${FASTD_PORT}; }`,
  );
  lab.hub.spawn("fastd", ["-c", lab.file("hub", hub)], { stderr: "inherit" });
  lab.client.spawn("fastd", ["-c", lab.file("client", client)], { stderr: "inherit" });
  return lab;
}

export async function fastdKeys(): Promise<{ secret: string; public: string }> {
  const run = async (flag: string, ...args: string[]) => {
    const words = [...args, "--machine-readable", flag];
    const { stdout } = await new Deno.Command("fastd", { args: words, stderr: "null" }).output();
    return new TextDecoder().decode(stdout).trim();
  };
  const secret = await run("--generate-key");
  const path = await Deno.makeTempFile();
  await Deno.writeTextFile(path, `secret "${secret}";`);
  const keys = { secret, public: await run("--show-key", "-c", path) };
  await Deno.remove(path);
  return keys;
}

export function socat(): Promise<Ends> {
  const lab = new PeerLab();
  const start = (host: Host, peer: Host, own: string) =>
    host.spawn("socat", [
      `UDP4-DATAGRAM:${peer.ip}:${FASTD_PORT},bind=${host.ip}:${FASTD_PORT}`,
      `TUN:${own}/24,up,iff-no-pi,tun-name=bench0`,
    ]);
  start(lab.hub, lab.client, HUB_IP!);
  start(lab.client, lab.hub, CLIENT_IP!);
  return Promise.resolve(lab);
}

/** wireguard-go, by the name its module is installed with. */
export async function wireguardGo(program: string): Promise<Ends> {
  const lab = new PeerLab();
  const key = async (name: string) => {
    const { stdout } = await lab.hub.run("wg", ["genkey"]);
    const path = lab.file(name, stdout);
    const command = `wg pubkey < ${path}`;
    return { path, public: (await lab.hub.run("sh", ["-c", command])).stdout.trim() };
  };
  const [hub, client] = [await key("hub"), await key("client")];
  const start = async (
    host: Host,
    own: typeof hub,
    far: typeof hub,
    [ip, farHost]: [string, Host],
  ) => {
    // Its control sockets lie side by side, whatever the namespace.
    const ifname = `wg-${host.name}`;
    host.spawn(program, ["-f", ifname], { env: { LOG_LEVEL: "error" } });
    const setUp = `until wg set ${ifname} listen-port ${WIREGUARD_PORT} private-key ${own.path} \
      peer ${far.public} endpoint ${farHost.ip}:${WIREGUARD_PORT} allowed-ips 10.90.0.0/24; do
      sleep 0.1; done 2>/dev/null
      ip address add ${ip}/24 dev ${ifname} && ip link set ${ifname} mtu 1440 up`;
    await host.run("sh", ["-c", setUp]);
  };
  await start(lab.hub, hub, client, [HUB_IP!, lab.client]);
  await start(lab.client, client, hub, [CLIENT_IP!, lab.hub]);
  return lab;
}

const WIREGUARD_PORT = 51_820;
const NEBULA_PORT = 4242;

export async function nebula(): Promise<Ends> {
  const lab = new PeerLab();
  const { directory } = lab;
  const cert = async (...args: string[]) => {
    const { code, stderr } = await lab.hub.run("nebula-cert", args, { cwd: directory });
    if (code !== 0) throw new Error(`nebula-cert ${args.join(" ")}: ${stderr}`);
  };
  await cert("ca", "-name", "bench");
  const start = async (host: Host, name: string, ip: string) => {
    await cert("sign", "-name", name, "-networks", `${ip}/24`);
    const isHub = name === "hub";
    const config = {
      pki: { ca: "ca.crt", cert: `${name}.crt`, key: `${name}.key` },
      static_host_map: isHub ? {} : { [HUB_IP!]: [`${lab.hub.ip}:${NEBULA_PORT}`] },
      lighthouse: { am_lighthouse: isHub, hosts: isHub ? [] : [HUB_IP] },
      listen: { host: "0.0.0.0", port: NEBULA_PORT },
      tun: { dev: "bench0", mtu: 1440 },
      logging: { level: "error" },
      firewall: {
        outbound: [{ port: "any", proto: "any", host: "any" }],
        inbound: [{ port: "any", proto: "any", host: "any" }],
      },
    };
    const path = lab.file(`${name}.json`, JSON.stringify(config));
    host.spawn("nebula", ["-config", path], { cwd: directory });
  };
  await start(lab.hub, "hub", HUB_IP!);
  await start(lab.client, "client", CLIENT_IP!);
  return lab;
}
