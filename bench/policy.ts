/**
 * How long a new policy takes to every host: members of many groups hold their calls, the policy is
 * reloaded, and each host tells its kernel's rules, in memory, what its peers may open now. See
 * README.md.
 */
import { parseArgs } from "@std/cli/parse-args";
import { parseTokenText } from "../lib/coord/api.ts";
import { ownNonce, signRequest } from "../lib/coord/auth.ts";
import { type AllPeers, CoordClient } from "../lib/coord/client.ts";
import { AccessGuard } from "../lib/dataplane/guard/access.ts";
import { systemClock, systemRandom } from "../lib/edges.ts";
import type { NodeKey } from "../lib/keys.ts";
import { type Access, formatAccess } from "../lib/policy/access.ts";
import { type FakeNode, fakeNode } from "../tests/fakes/fake_node.ts";
import { CoordinatorProcess, cpuMs, runCoordinator } from "../tests/fakes/coordinator_process.ts";
import { FakeHost } from "../tests/fakes/host.ts";
import { sleep } from "../tests/overlay.ts";

const AT_ONCE = 20;
const MAX_FILES = 65_536;
const flags = parseArgs(Deno.args, {
  string: ["nodes", "groups", "rounds"],
  default: { nodes: "1000", groups: "50", rounds: "5" },
});
const [nodes, groups, rounds] = [flags.nodes, flags.groups, flags.rounds].map(Number) as [
  number,
  number,
  number,
];

/** Each group is open to itself, and at one port to the group before it: three groups see each other. */
function policy(port: number): string {
  const names = Array.from({ length: groups }, (_, i) => `g${i}`);
  return JSON.stringify({
    groups: Object.fromEntries(names.map((name) => [name, [`tag:${name}`]])),
    rules: names.flatMap((name, i) => [
      { from: `group:${name}`, to: `group:${name}`, allow: [`tcp:22,${port}`, "icmp"] },
      { from: `group:${name}`, to: `group:${names[(i + 1) % groups]}`, allow: `tcp:${port}` },
    ]),
  });
}

/** A member that holds its call, and takes the answer without reading it. */
class Member {
  protected readonly client: CoordClient;
  protected readonly node: FakeNode;
  readonly #url: string;
  readonly #coordinator: NodeKey;
  #etag = "";
  #text = "";

  constructor(url: string, node: FakeNode, token: ReturnType<typeof parseTokenText>) {
    const world = { clock: systemClock, random: systemRandom };
    this.client = new CoordClient({ url, identity: node, tokenSecret: token.secret, ...world });
    this.node = node;
    this.#url = url;
    this.#coordinator = token.coordinator;
  }

  async join(signal: AbortSignal): Promise<void> {
    const { discoKey, name: nodeName } = this.node;
    await this.client.register({ discoKey, nodeName }, signal);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const query = `?since=${this.#etag}&changes=1`;
      const parts = {
        ...{ method: "GET", path: "/v1/peers", query, body: new Uint8Array() },
        timestamp: String(Math.floor(Date.now() / 1000)),
        nonce: ownNonce(systemRandom(16)),
        coordinator: this.#coordinator,
      };
      const headers = await signRequest(parts, this.node.nodeKey, this.node.sign);
      const answer = await fetch(`${this.#url}/v1/peers${query}`, { headers, signal })
        .then((response) => response.ok ? response.text() : undefined, () => undefined);
      if (answer === undefined) await sleep(100);
      if (answer === undefined) continue;
      this.#etag = /"etag":"([0-9a-f]+)"/.exec(answer.slice(0, 64))![1]!;
      if (!answer.includes(`"since"`)) this.#text = answer;
    }
  }

  has(port: number): boolean {
    return this.#text.includes(`${port}"`);
  }
}

/** One that does all that a host does, with a kernel in memory. */
class Host extends Member {
  readonly #guard = new AccessGuard(new FakeHost(), {
    ...{ role: "up", port: 7777 },
    onFault: (_what, error) => {
      throw error;
    },
  });
  /** As its kernel has them. */
  readonly inbound = new Map<NodeKey, string>();

  override async run(signal: AbortSignal): Promise<void> {
    let known: AllPeers | undefined;
    while (!signal.aborted) {
      const list: AllPeers | undefined = await this.client.peers(known, signal).catch(() =>
        undefined
      );
      if (!list) await sleep(100);
      if (!list) continue;
      known = list;
      for (const { nodeKey, inbound } of list.peers) {
        if (nodeKey !== this.node.nodeKey) this.#allow(nodeKey, inbound!);
      }
    }
  }

  #allow(peer: NodeKey, inbound: Access): void {
    const text = formatAccess(inbound).join(" ");
    if (this.inbound.get(peer) === text) return;
    if (!this.inbound.has(peer)) this.#guard.place(peer, 1 + this.inbound.size);
    this.#guard.allow(peer, inbound);
    this.inbound.set(peer, text);
  }

  override has(port: number): boolean {
    const open = [...this.inbound.values()].filter((text) => text !== "");
    return open.length > 0 && open.every((text) => text.includes(String(port)));
  }
}

const directory = Deno.makeTempDirSync();
const [file, state] = [`${directory}/policy.json`, `${directory}/coord.db`];
Deno.writeTextFileSync(file, policy(443));
const args = ["--state", state, "--pool", "100.64.0.0/16", "--policy", file];
const stop = new AbortController();
await using coord = await CoordinatorProcess.start(args, { maxFiles: MAX_FILES });
const hosts: Member[] = [];
const running: Promise<void>[] = [];
for (let group = 0; group < groups; group++) {
  const wishes = ["--reusable", "--approve", "--tag", `g${group}`, "--state", state];
  const { stdout } = await runCoordinator(["token", "create", ...wishes]);
  const token = parseTokenText(stdout.trim());
  const size = Math.floor(nodes / groups);
  const own = await Promise.all(
    Array.from(
      { length: size },
      async (_, i) =>
        new (i === 0 ? Host : Member)(coord.url, await fakeNode(`${group}-${i}`), token),
    ),
  );
  for (let i = 0; i < size; i += AT_ONCE) {
    const some = own.slice(i, i + AT_ONCE);
    await Promise.all(some.map((host) => host.join(stop.signal)));
    running.push(...some.map((host) => host.run(stop.signal)));
  }
  hosts.push(...own);
}
const all = async (port: number) => {
  while (!hosts.every((host) => host.has(port))) await sleep(5);
};
await all(443);
await sleep(5_000);
const whole = hosts.filter((host) => host instanceof Host);
const peers = Math.max(...whole.map(({ inbound }) => inbound.size));
console.log(`${hosts.length} members in ${groups} groups: each is told of ${peers} peers at most`);
for (let round = 0; round < rounds; round++) {
  const port = 8000 + round;
  Deno.writeTextFileSync(file, policy(port));
  const [startMs, cpu] = [performance.now(), cpuMs(coord.pid)];
  const { code, stderr } = await runCoordinator(["policy", "reload", "--state", state]);
  if (code !== 0) throw new Error(stderr);
  const commandMs = performance.now() - startMs;
  await all(port);
  const ms = performance.now() - startMs;
  console.log(
    `reload: ${(ms / 1000).toFixed(2)} s to the last host's rules, the command ${
      (commandMs / 1000).toFixed(2)
    } s of it; ${((cpuMs(coord.pid) - cpu) / 1000).toFixed(2)} s of the coordinator's CPU`,
  );
  await sleep(2_000);
}
stop.abort();
await Promise.all(running);
Deno.removeSync(directory, { recursive: true });
