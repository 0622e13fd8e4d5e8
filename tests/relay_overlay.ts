/** Nodes of a lab that reach each other by relays alone, through real gretun-coord processes. */
import { strictEqual } from "node:assert/strict";
import type { NodeKey } from "../lib/keys.ts";
import { type Host, Lab, type Nat, type NatOptions } from "./lab/mod.ts";
import { DENO_RUN } from "./deno_run.ts";
import type { NodeCommand, NodeEvent } from "./fakes/relay_node.ts";
import { until } from "./overlay.ts";

const path = (name: string) => new URL(`../${name}`, import.meta.url).pathname;
const GRETUN_COORD = path("gretun-coord");
const NODE = path("tests/fakes/relay_node.ts");
const NODE_PORT = 7777;

type Of<E extends NodeEvent["event"]> = NodeEvent & { event: E };

export class RelayNode {
  readonly host: Host;
  nodeKey!: NodeKey;
  readonly events: NodeEvent[] = [];
  log = "";
  ended: Promise<unknown>;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;

  constructor(host: Host, url: string) {
    this.host = host;
    const child = host.spawn(
      Deno.execPath(),
      [...DENO_RUN, NODE, url, `${NODE_PORT}`],
      { stdin: "piped", stdout: "piped", stderr: "piped" },
    );
    this.#input = child.stdin.getWriter();
    this.ended = Promise.all([this.#readEvents(child.stdout), this.#readLog(child.stderr)]);
  }

  async #readEvents(stdout: ReadableStream<Uint8Array>): Promise<void> {
    let rest = "";
    for await (const text of stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.events.push(JSON.parse(line));
    }
  }

  async #readLog(stderr: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stderr.pipeThrough(new TextDecoderStream())) this.log += text;
  }

  async ready(): Promise<void> {
    this.nodeKey = (await this.event("ready")).nodeKey;
  }

  /** Takes the first event of that kind, waiting for it. */
  async event<E extends NodeEvent["event"]>(kind: E): Promise<Of<E>> {
    const explain = () => `${JSON.stringify(this.events)}\n${this.log}`;
    return await until(`${this.host.name} to tell ${kind}`, async () => {
      const index = this.events.findIndex(({ event }) => event === kind);
      if (index >= 0) return this.events.splice(index, 1)[0] as Of<E>;
      const failed = this.events.find(({ event }) => event === "failed");
      if (failed) throw new Error(`${this.host.name} ${explain()}`);
      return undefined;
    }, explain);
  }

  async command(command: NodeCommand): Promise<void> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(command) + "\n"));
  }

  async allocate(peer: RelayNode): Promise<Of<"allocated">> {
    await this.command({ do: "allocate", peer: peer.nodeKey });
    return await this.event("allocated");
  }

  async end(): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.ended;
  }
}

export class RelayLab implements AsyncDisposable {
  readonly lab = Lab.create({ prefix: `gretun-relay-${Deno.pid}-` });
  readonly coord: Host;
  readonly nodes: RelayNode[] = [];
  readonly nats: Nat[] = [];
  readonly directory = Deno.makeTempDirSync();
  coordinator!: Deno.ChildProcess;
  log = "";
  readonly #drained: Promise<void>[] = [];

  constructor() {
    this.coord = this.lab.publicHost("coord");
  }

  get url(): string {
    return `http://${this.coord.ip}:8443`;
  }

  /** Resolves when it says that it listens. */
  async startCoordinator(...more: string[]): Promise<void> {
    this.coordinator = await this.start(this.coord, [
      ...["--listen", `${this.coord.ip}:8443`, "--state", `${this.directory}/coord.db`],
      ...["--stun-listen", "off", "-v", ...more],
    ], "coordinator listening");
  }

  async start(host: Host, args: string[], ready: string): Promise<Deno.ChildProcess> {
    const child = host.spawn(GRETUN_COORD, args, { stderr: "piped" });
    let said = "";
    this.#drained.push((async () => {
      for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
        said += text;
        this.log += `${host.name}: ${text}`;
      }
    })());
    await until(`${host.name} to say ${ready}`, async () => said.includes(ready), () => said);
    return child;
  }

  async stopCoordinator(): Promise<void> {
    this.coordinator.kill("SIGKILL");
    await this.coordinator.status;
  }

  /** Two nodes, each behind a NAT of its own. */
  async pair(natOptions: [NatOptions, NatOptions]): Promise<[RelayNode, RelayNode]> {
    const nodes = natOptions.map((options, i) => {
      const name = String.fromCharCode(97 + i);
      const nat = this.lab.nat(`nat-${name}`, options);
      this.nats.push(nat);
      return new RelayNode(this.lab.host(name, { behind: nat }), this.url);
    });
    this.nodes.push(...nodes);
    for (const node of nodes) await node.ready();
    return nodes as [RelayNode, RelayNode];
  }

  /** Samples by name and labels, as the text has them. */
  async metrics(host: Host, port: number): Promise<Map<string, number>> {
    using connection = await host.within(() => Deno.connect({ hostname: host.ip, port }));
    const request = `GET /metrics HTTP/1.0\r\nhost: ${host.ip}\r\n\r\n`;
    await connection.write(new TextEncoder().encode(request));
    let text = "";
    for await (const part of connection.readable.pipeThrough(new TextDecoderStream())) text += part;
    const samples = text.split("\n").filter((line) => line.startsWith("gretun_"));
    return new Map(samples.map((line) => {
      const [name, value] = line.split(/ (?=\S+$)/);
      return [name!, Number(value)];
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
    await Promise.all([...this.nodes.map((node) => node.end()), ...this.#drained]);
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** Each gets what the other sends, from the very endpoint that it sends to. */
export async function exchange(
  [a, endpointOfB]: [RelayNode, string],
  [b, endpointOfA]: [RelayNode, string],
): Promise<void> {
  for (const [from, to, at] of [[a, b, endpointOfA], [b, a, endpointOfB]] as const) {
    const text = `from ${from.host.name} ${crypto.randomUUID()}`;
    await from.command({ do: "send", text });
    const received = await to.event("received");
    strictEqual(received.text, text);
    strictEqual(received.from, at);
  }
}
