/** `gretun netcheck` itself behind the NATs of the lab, against a coordinator, coturn and miniupnpd. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type Ip, parseIp } from "../../lib/addr.ts";
import {
  type Filtering,
  FILTERINGS,
  type Host,
  Lab,
  type Mapping,
  MAPPINGS,
  type NatBehaviour,
  NO_UDP,
  type RunResult,
} from "../lab/mod.ts";
import type { Reach } from "../../lib/netcheck/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { isMiniupnpdThere, makeHome, Miniupnpd, PUBLIC_IP } from "../miniupnpd.ts";
import { httpGet, until } from "../overlay.ts";
import { narrow } from "../path_mtu_scenarios.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const program = (name: string) => new URL(`../../${name}`, import.meta.url).pathname;
const GRETUN = program("gretun");
const PREFIX = `gretun-nc-${Deno.pid}-`;
/** Of the same host: what is needed to tell how a NAT filters by address. */
const SECOND_IP = parseIp("203.0.113.200");
const DUAL = { families: "dual" } as const;

// deno-lint-ignore no-explicit-any
type Json = any;

const makeLab = () => Lab.create({ prefix: PREFIX });

function addIp(host: Host, local: Ip): void {
  using rtnl = host.within(() => RtNetlink.open());
  const { ifindex } = rtnl.link("eth0")!;
  rtnl.addAddress({ ifindex, local, prefixLength: 24 });
}

/** A coordinator on a public host; resolves once it answers. */
async function startCoordinator(
  lab: Lab,
  args: (ip: Ip) => string[] = () => [],
  host = lab.publicHost("coord"),
): Promise<Host> {
  addIp(host, SECOND_IP);
  const listen = ["--listen", `${host.ip}:8443`, "--state", ":memory:"];
  host.spawn(program("gretun-coord"), [...listen, ...args(host.ip)]);
  const answers = () => httpGet(host, `${host.ip}:8443`, "/healthz").catch(() => undefined);
  await until("the coordinator to listen", answers);
  return host;
}

/** STUN at two ports of two addresses. */
const fourPlaces = (ip: Ip) =>
  [ip, SECOND_IP].flatMap((each) => [3478, 3480].flatMap((p) => ["--stun-listen", `${each}:${p}`]));

const netcheck = (host: Host, ...args: string[]): Promise<RunResult> =>
  host.run(GRETUN, ["netcheck", ...args]);

async function report(host: Host, ...args: string[]): Promise<{ code: number; json: Json }> {
  const { code, stdout, stderr } = await netcheck(host, "--json", ...args);
  strictEqual(stderr, "");
  return { code, json: JSON.parse(stdout) };
}

const url = (coord: Host) => `http://${coord.ip}:8443`;

// --- kinds of NAT

interface Kind {
  name: string;
  make(lab: Lab, name: string): Host;
  mapping: Mapping;
  filtering: Filtering;
  reach: Reach;
}

const REACH_THROUGH: Record<Filtering, Reach> = {
  "endpoint-independent": "open",
  "address-dependent": "restricted",
  "address-and-port-dependent": "port-restricted",
};
const MEANING: Partial<Record<Reach, RegExp>> = {
  "open": /^Direct with all peers: everybody reaches this host\.$/,
  "restricted": /^Direct with all peers\.$/,
  "port-restricted": /^Direct with all peers but those behind symmetric NATs: a relay is needed/,
  "symmetric": /^Symmetric NAT: direct with peers .* a relay is needed with the others\.$/,
};

const behind = (behaviour: NatBehaviour): Kind["make"] => (lab, name) =>
  lab.host(name, { behind: lab.nat(`nat-${name}`, behaviour) });

const KINDS: Kind[] = [
  ...MAPPINGS.flatMap((mapping, i) =>
    FILTERINGS.map((filtering, j): Kind => ({
      name: `kind-${i}-${j}`,
      make: behind({ mapping, filtering }),
      mapping,
      filtering,
      reach: i > 0 ? "symmetric" : REACH_THROUGH[filtering],
    }))
  ),
  {
    name: "open",
    make: behind({ openInput: true }),
    mapping: "endpoint-independent",
    filtering: "address-and-port-dependent",
    reach: "port-restricted",
  },
  {
    name: "public",
    make: (lab, name) => lab.publicHost(name),
    mapping: "endpoint-independent",
    filtering: "endpoint-independent",
    reach: "open",
  },
];

/** Checks from a host behind each kind at once, as it takes seconds of waiting. */
async function eachKind(
  lab: Lab,
  args: string[],
  look: (kind: Kind, json: Json) => void,
): Promise<void> {
  await Promise.all(KINDS.map(async (kind) => {
    const host = kind.make(lab, kind.name);
    const { code, json } = await report(host, ...args);
    strictEqual(code, 0, kind.name);
    try {
      look(kind, json);
    } catch (error) {
      throw new Error(`${kind.name}: ${JSON.stringify(json)}`, { cause: error });
    }
  }));
}

Deno.test("netcheck: every kind of NAT, a coordinator with two addresses", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab, fourPlaces);
  const startMs = performance.now();
  await eachKind(lab, ["--coordinator", url(coord)], (kind, json) => {
    deepStrictEqual([json.ipv4.mapping, json.ipv4.filtering], [kind.mapping, kind.filtering]);
    strictEqual(json.reach, kind.reach);
    match(json.meaning, MEANING[kind.reach]!);
    strictEqual(json.ipv4.nat, kind.name !== "public");
    strictEqual(json.hairpinning, kind.name === "public" ? null : false);
    const names = json.stun_servers.map(({ name }: Json) => name);
    deepStrictEqual(names, [`${coord.ip}:3478`, `${coord.ip}:3480`]);
    for (const { latency_ms } of json.stun_servers) {
      ok(latency_ms >= 0 && latency_ms < performance.now() - startMs, `${latency_ms} ms`);
    }
  });
});

Deno.test("netcheck: every kind of NAT, a coordinator as it comes: two ports of one address", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab);
  const upTo = (behaviour: Mapping | Filtering) =>
    behaviour === "address-and-port-dependent"
      ? behaviour
      : "endpoint-independent or address-dependent";
  await eachKind(lab, ["--coordinator", url(coord)], (kind, json) => {
    const mapping = kind.name === "public" ? kind.mapping : upTo(kind.mapping);
    deepStrictEqual([json.ipv4.mapping, json.ipv4.filtering], [mapping, upTo(kind.filtering)]);
    strictEqual(json.coordinator.reachable, true);
    deepStrictEqual(json.stun_servers.map(({ name }: Json) => name), [`${coord.ip}:3478`]);
  });
});

Deno.test("netcheck: a coordinator whose second STUN port is taken serves the first one", async () => {
  await using lab = makeLab();
  const host = lab.publicHost("coord");
  const taken = host.within(() =>
    Deno.listenDatagram({ transport: "udp", hostname: "::", port: 3480 })
  );
  try {
    const coord = await startCoordinator(lab, undefined, host);
    const { json } = await report(lab.publicHost("alice"), "--coordinator", url(coord));
    deepStrictEqual([json.udp, json.ipv4.filtering], [true, "unknown"]);
  } finally {
    taken.close();
  }
});

Deno.test("netcheck: a coordinator without STUN: those of gretun stun are asked", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab, () => ["--stun-listen", "off"]);
  const { code, json } = await report(lab.publicHost("alice"), "--coordinator", url(coord));
  strictEqual(code, 0);
  deepStrictEqual([json.stun_servers.length, json.reach], [3, "tcp-only"]);
  for (const { addr } of json.stun_servers) strictEqual(addr, null);
});

// --- networks that let little through

Deno.test("netcheck: UDP blocked, the coordinator reached by TCP", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab);
  const alice = lab.host("alice", { behind: lab.nat("office", { firewall: NO_UDP }) });
  const { code, stdout } = await netcheck(alice, "--coordinator", url(coord));
  strictEqual(code, 0);
  match(stdout, /^UDP +blocked: no STUN server answers$/m);
  match(stdout, /^Coordinator +http\S+ answers in [\d.]+ ms$/m);
  match(stdout, /^203\.0\.113\.\d+:3478 +203\.0\.113\.\d+:3478 +no answer$/m);
  match(
    stdout,
    /^No STUN server answers, UDP seems to be blocked: a relay over TCP is needed with every peer\.$/m,
  );
});

Deno.test("netcheck: nothing gets out", async () => {
  await using lab = makeLab();
  const alice = lab.host("alice", { behind: lab.nat("office", { firewall: NO_UDP }) });
  const nowhere = ["--coordinator", "http://198.51.100.9:8443", "--timeout", "700ms"];
  const { code, json } = await report(alice, ...nowhere);
  strictEqual(code, 1);
  strictEqual(json.udp, false);
  strictEqual(json.coordinator.reachable, false);
  match(json.meaning, /^Nothing gets out: neither/);
});

Deno.test("netcheck: UDP works and the coordinator's TCP port does not", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab);
  const alice = lab.host("alice", { behind: lab.nat("home") });
  const { code, stdout } = await netcheck(alice, "--coordinator", `http://${coord.ip}:9`);
  strictEqual(code, 0);
  match(stdout, /^UDP +works$/m);
  match(stdout, /^Coordinator +coordinator http:\S+:9 does not answer: /m);
});

Deno.test("netcheck: a path that carries 1280 bytes and does not say so is named", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab);
  const nat = lab.nat("nat");
  await narrow(nat, 1280);
  const host = lab.host("host", { behind: nat });
  const { json } = await report(host, "--coordinator", url(coord));
  const server = { stun_server: `${coord.ip}:3478` };
  deepStrictEqual(json.ipv4.narrow_path, { ...server, path_mtu: 1280, route_mtu: 1500 });
  match(json.meaning, /more than 1280 bytes vanish/);
  // Routers that say so trouble nobody.
  const talking = lab.nat("nat-told");
  await talking.run("ip", ["link", "set", "dev", "out", "mtu", "1280"]);
  const told = lab.host("told", { behind: talking });
  for (const other of [told, lab.publicHost("wide")]) {
    const { json } = await report(other, "--coordinator", url(coord));
    strictEqual(json.ipv4.narrow_path, null);
  }
});

Deno.test("netcheck: a NAT that hairpins", async () => {
  await using lab = makeLab();
  const coord = await startCoordinator(lab);
  const nat = lab.nat("home", { hairpin: true });
  const alice = lab.host("alice", { behind: nat });
  // With br_netfilter the bridge would take it for a frame that leaves by the port it came from.
  await nat.run("sysctl", ["-w", "net.bridge.bridge-nf-call-iptables=0"]);
  const { json } = await report(alice, "--coordinator", url(coord));
  strictEqual(json.hairpinning, true);
});

Deno.test("netcheck: IPv4 behind a NAT, IPv6 behind a firewall, from the port that is given", async () => {
  await using lab = Lab.create({ prefix: PREFIX, ipv6: true });
  const coord = await startCoordinator(lab, undefined, lab.publicHost("coord", DUAL));
  const nat = lab.nat("home", { ipv6: true });
  const alice = lab.host("alice", { behind: nat, ...DUAL });
  const servers = ["--stun-server", `[${coord.ip6}]:3478,${coord.ip}`];
  const { code, json } = await report(alice, ...servers, "--port", "7777");
  strictEqual(code, 0);
  deepStrictEqual(json.ipv4, {
    addr: `${nat.ip}:7777`,
    local_port: 7777,
    nat: true,
    mapping: "endpoint-independent or address-dependent",
    narrow_path: null,
    filtering: "address-and-port-dependent",
  });
  deepStrictEqual(json.ipv6, {
    addr: `[${alice.ip6}]:${json.ipv6.local_port}`,
    local_port: json.ipv6.local_port,
    nat: false,
    mapping: "endpoint-independent",
    narrow_path: null,
    filtering: "address-and-port-dependent",
  });
  match(json.meaning, / Over IPv6, direct with peers that have it too\.$/);
});

// --- foreign servers

/** coturn at both addresses of a host. */
function startCoturn(lab: Lab, ...args: string[]): Host {
  const host = lab.publicHost("turn");
  addIp(host, SECOND_IP);
  const listen = [host.ip, SECOND_IP].map((ip) => `--listening-ip=${ip}`);
  const fixed = ["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout"];
  const files = ["--pidfile=/dev/null", "--userdb=/dev/null"];
  host.spawn("turnserver", [...fixed, ...files, ...listen, ...args]);
  return host;
}

const coturnAnswers = (host: Host, places: string) =>
  until("coturn to answer", async () => (await report(host, "--stun-server", places)).json.udp);

Deno.test("netcheck: every kind of NAT, coturn", async () => {
  await using lab = makeLab();
  const turn = startCoturn(lab);
  const places = `${turn.ip},${SECOND_IP}`;
  await coturnAnswers(lab.publicHost("waiting"), places);
  await eachKind(lab, ["--stun-server", places], (kind, json) => {
    deepStrictEqual([json.ipv4.mapping, json.ipv4.filtering], [kind.mapping, kind.filtering]);
    strictEqual(json.coordinator, null);
  });
});

Deno.test("netcheck: servers that do not answer from elsewhere", async () => {
  await using lab = makeLab();
  const turn = startCoturn(lab, "--no-rfc5780");
  const alice = lab.host("alice", { behind: lab.nat("home") });
  const places = `${turn.ip},${SECOND_IP}`;
  await coturnAnswers(alice, places);
  const { json } = await report(alice, "--stun-server", places);
  deepStrictEqual(json.ipv4.mapping, "endpoint-independent");
  deepStrictEqual([json.ipv4.filtering, json.reach], ["unknown", "port-restricted"]);
  match(json.meaning, / How the NAT filters is not known\.$/);
});

// --- port mapping

for (const isDouble of [true, false]) {
  Deno.test({
    name: `netcheck: port mapping by miniupnpd, ${isDouble ? "seen at another address" : "alone"}`,
    ignore: !isMiniupnpdThere,
    fn: async () => {
      await using lab = makeLab();
      const coord = await startCoordinator(lab);
      const { nat, alice } = makeHome(lab);
      const snat = `insert rule ip nat postrouting oifname out snat to ${PUBLIC_IP}`;
      if (!isDouble) strictEqual((await nat.run("nft", [snat])).code, 0);
      using rtnl = coord.within(() => RtNetlink.open());
      rtnl.addRoute({ destination: { ip: PUBLIC_IP, prefixLength: 32 }, gateway: nat.ip });
      await using _router = await Miniupnpd.start(nat);
      const mapping = async () => {
        const { json } = await report(alice, "--coordinator", url(coord));
        return json.port_mapping.external_ip !== null && json;
      };
      const json = await until("miniupnpd to answer", mapping);
      const { protocols, ...rest } = json.port_mapping;
      deepStrictEqual(rest, {
        gateway: nat.prefix.ip.replace(/\.0$/, ".1"),
        external_ip: PUBLIC_IP,
        external_ip_public: true,
      });
      const answers = { answers: true };
      deepStrictEqual(protocols, { pcp: answers, natpmp: answers, upnp: answers });
      deepStrictEqual([json.double_nat, json.reach], [
        isDouble,
        isDouble ? "port-restricted" : "mapped",
      ]);
      const { stdout } = await netcheck(alice, "--coordinator", url(coord));
      match(
        stdout,
        /^Port mapping +PCP, NAT-PMP, UPnP at 10\.0\.\d\.1, external address 192\.0\.1\.1 \(public\)$/m,
      );
      match(stdout, isDouble ? /^Double NAT +likely: /m : /^Double NAT +no$/m);
    },
  });
}
