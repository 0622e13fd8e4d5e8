/**
 * The STUN client through real NATs (nftables) against coturn and our own server, in namespaces
 * that each test makes and removes:
 *
 *     client 10.9.1.2 --- 10.9.1.1 router 198.51.100.1 --- 198.51.100.2, .3 and 2001:db8::2 servers
 */
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  familyOf,
  formatEndpoint,
  type Ip,
  parseCidr,
  parseEndpoint,
  parseIp,
} from "../../lib/addr.ts";
import { systemClock, systemRandom } from "../../lib/edges.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  type Fd,
  sourceAddress,
  withNetns,
} from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { writeKernelFile } from "../../lib/linux/process.ts";
import {
  mappingBehaviour,
  resolveServers,
  type StunAnswer,
  StunClient,
  StunService,
} from "../../lib/stun/mod.ts";

const SERVER = "198.51.100.2";
const OTHER_SERVER = "198.51.100.3";
const ROUTER = "198.51.100.1";
const SERVER_6 = "2001:db8::2";
const ROUTER_6 = "2001:db8::1";
const PORT = 3478;
const OTHER_PORT = 3479;
const PLACES = [`${SERVER}:${PORT}`, `${SERVER}:${OTHER_PORT}`, `${OTHER_SERVER}:${PORT}`];
/** coturn needs about a second to start; the client asks again until then. */
const TIMEOUT_MS = 15_000;

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();

interface Net {
  client: Fd;
  router: Fd;
  server: Fd;
  /** What is to be undone before the namespaces go. */
  stack: AsyncDisposableStack;
}

/** Runs `body` in fresh namespaces; all that is on its stack goes with them, on failure too. */
async function inNet(body: (net: Net) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const make = (role: string) => {
    const name = `gretun-stun-${Deno.pid}-${role}`;
    const netns = stack.use(createNamedNetns(name));
    stack.defer(() => deleteNamedNetns(name));
    return netns;
  };
  const net = { client: make("client"), router: make("router"), server: make("server"), stack };
  connect(net);
  await body(net);
}

function connect({ client, router, server }: Net): void {
  using c = withNetns(client, () => RtNetlink.open());
  using r = withNetns(router, () => RtNetlink.open());
  using s = withNetns(server, () => RtNetlink.open());
  r.createLink({ name: "inside", kind: "veth", peerName: "up", peerNetnsFd: client.fd });
  r.createLink({ name: "outside", kind: "veth", peerName: "up", peerNetnsFd: server.fd });
  setUp(r, "inside", ["10.9.1.1"]);
  setUp(c, "up", ["10.9.1.2"]);
  setUp(r, "outside", [ROUTER, ROUTER_6]);
  setUp(s, "up", [SERVER, OTHER_SERVER, SERVER_6]);
  c.addRoute({ destination: parseCidr("0.0.0.0/0"), gateway: parseIp("10.9.1.1") });
  withNetns(router, () => writeKernelFile("/proc/sys/net/ipv4/ip_forward", "1"));
}

function setUp(rtnl: RtNetlink, name: string, ips: string[]): void {
  const { ifindex } = rtnl.link(name)!;
  for (const local of ips.map(parseIp)) {
    rtnl.addAddress({ ifindex, local, prefixLength: familyOf(local) === 4 ? 24 : 64 });
  }
  rtnl.changeLink(ifindex, { up: true });
  rtnl.changeLink(rtnl.link("lo")!.ifindex, { up: true });
}

/** What is sent out of the router gets the router's address. */
async function masquerade({ router }: Net, how: string): Promise<void> {
  const rules = `table ip nat {
    chain post {
      type nat hook postrouting priority srcnat
      oifname "outside" ${how}
    }
  }`;
  const command = new Deno.Command("nft", { args: [rules], stdout: "null", stderr: "piped" });
  const child = withNetns(router, () => command.spawn());
  const { success, stderr } = await child.output();
  ok(success, new TextDecoder().decode(stderr));
}

/** coturn at all addresses of the server, on both ports of each. */
async function startCoturn({ server, stack }: Net): Promise<void> {
  const dir = await Deno.makeTempDir();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const listen = [SERVER, OTHER_SERVER, SERVER_6].map((ip) => `--listening-ip=${ip}`);
  const command = new Deno.Command("turnserver", {
    args: [
      "-n", // no configuration file
      "--stun-only",
      "--no-tls",
      "--no-dtls",
      "--no-cli",
      `--listening-port=${PORT}`,
      `--alt-listening-port=${OTHER_PORT}`,
      ...listen,
      `--pidfile=${dir}/pid`,
      `--userdb=${dir}/db`,
      `--log-file=${dir}/log`,
      "--simple-log",
    ],
    stdout: "null",
    stderr: "null",
  });
  const child = withNetns(server, () => command.spawn());
  stack.defer(async () => {
    child.kill("SIGKILL");
    await child.status;
  });
}

/** Our own server at all places. */
async function startOwn(net: Net): Promise<void> {
  serve(net, PLACES);
}

function serve({ server, stack }: Net, places: readonly string[]): void {
  const stop = new AbortController();
  stack.defer(() => stop.abort());
  const service = new StunService({ signal: stop.signal, localAddress: sourceAddress });
  for (const { ip: hostname, port } of places.map(parseEndpoint)) {
    withNetns(server, () => service.listen({ hostname, port }));
  }
}

/** Asks from one socket in that namespace; the local port beside the answers. */
async function ask(
  from: Fd,
  hostname: string,
  names: string[],
  timeoutMs = TIMEOUT_MS,
): Promise<{ port: number; answers: StunAnswer[] }> {
  const open = () => Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
  const socket = withNetns(from, open);
  const client = new StunClient({
    // What cannot be sent is lost, like any other datagram on the way.
    send: (bytes, { ip: hostname, port }) =>
      void socket.send(bytes, { transport: "udp", hostname, port }).catch(() => {}),
    clock: systemClock,
    random: systemRandom,
  });
  const received = receive(socket, client);
  try {
    const answers = await client.query(await resolveServers(names), { timeoutMs });
    return { port: (socket.addr as Deno.NetAddr).port, answers };
  } finally {
    socket.close();
    await received;
  }
}

async function receive(socket: Deno.DatagramConn, client: StunClient): Promise<void> {
  for await (const [bytes, address] of socket) {
    const { hostname, port } = address as Deno.NetAddr;
    client.handle(bytes, { ip: parseIp(hostname), port });
  }
}

const mappedIps = (answers: StunAnswer[]): Ip[] => [...new Set(answers.map((a) => a.mapped.ip))];

const SERVERS: [string, (net: Net) => Promise<void>][] = [
  ["coturn", startCoturn],
  ["our own server", startOwn],
];

for (const [name, start] of SERVERS) {
  Deno.test(`${name} through masquerade: endpoint-independent`, () =>
    inNet(async (net) => {
      await masquerade(net, "masquerade");
      await start(net);
      const { port, answers } = await ask(net.client, "0.0.0.0", PLACES);
      strictEqual(answers.length, PLACES.length);
      for (const { mapped } of answers) strictEqual(formatEndpoint(mapped), `${ROUTER}:${port}`);
      strictEqual(mappingBehaviour(answers), "endpoint-independent");
    }));

  Deno.test(`${name} through masquerade random: address-and-port-dependent`, () =>
    inNet(async (net) => {
      await masquerade(net, "masquerade random,fully-random");
      await start(net);
      const { port, answers } = await ask(net.client, "0.0.0.0", PLACES);
      strictEqual(answers.length, PLACES.length);
      deepStrictEqual(mappedIps(answers), [ROUTER]);
      for (const { mapped } of answers) notStrictEqual(mapped.port, port);
      strictEqual(mappingBehaviour(answers), "address-and-port-dependent");
    }));

  Deno.test(`${name} without a NAT: the address of the host itself`, () =>
    inNet(async (net) => {
      await start(net);
      const { port, answers } = await ask(net.router, "0.0.0.0", PLACES);
      for (const { mapped } of answers) strictEqual(formatEndpoint(mapped), `${ROUTER}:${port}`);
      strictEqual(mappingBehaviour(answers), "endpoint-independent");
    }));
}

const NAT_DISCOVERY: [string, string, string, RegExp][] = [
  ["mapping", "-m", "masquerade", /Endpoint Independent Mapping/],
  ["mapping", "-m", "masquerade random,fully-random", /Address and Port Dependent Mapping/],
  ["filtering", "-f", "masquerade", /Address and Port Dependent Filtering/],
];

for (const [what, option, how, expected] of NAT_DISCOVERY) {
  Deno.test(`coturn's natdiscovery with padding asks our server for the ${what} of ${how}`, () =>
    inNet(async (net) => {
      await masquerade(net, how);
      serve(net, [...PLACES, `${OTHER_SERVER}:${OTHER_PORT}`]);
      const args = [option, "-P", SERVER];
      const command = new Deno.Command("turnutils_natdiscovery", { args, stdin: "null" });
      const { stdout } = await withNetns(net.client, () => command.output());
      match(new TextDecoder().decode(stdout), expected);
    }));
}

Deno.test("coturn over IPv6: from another host, and from its own", () =>
  inNet(async (net) => {
    await startCoturn(net);
    const places = [`[${SERVER_6}]:${PORT}`];
    for (const [from, ip] of [[net.router, ROUTER_6], [net.server, SERVER_6]] as const) {
      const { port, answers } = await ask(from, "::", places);
      deepStrictEqual(answers.map(({ mapped }) => formatEndpoint(mapped)), [`[${ip}]:${port}`]);
    }
  }));

Deno.test("a server that cannot be reached: no answer, in the time that was given", () =>
  inNet(async (net) => {
    const { answers } = await ask(net.client, "0.0.0.0", ["192.0.2.1:3478"], 300);
    deepStrictEqual(answers, []);
  }));
