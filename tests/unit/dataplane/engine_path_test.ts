/** The user-space plane over threads that are not there. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { type DataCodec, GreCodec, openPlane } from "../../../lib/dataplane/mod.ts";
import { silentLog } from "../../../lib/edges.ts";
import type { Engine, EngineLink, EngineOptions } from "../../../lib/engine/mod.ts";
import { FakeHost } from "../../fakes/host.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

class Bench implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly faults: unknown[] = [];
  restarts = 0;
  readonly links: EngineLink[] = [];
  readonly injected: Uint8Array[] = [];
  heard = 0;
  engine!: EngineOptions;
  readonly plane;

  constructor(codec: DataCodec = new GreCodec()) {
    const memory = new FakeHost();
    const engine = {
      restart: () => void this.restarts++,
      features: { segments: true },
      drops: () => ({ "no-path": 3, "own-tunnel": 2 }),
      addLink: (ifname: string) => {
        memory.openTun(ifname, () => {});
        return 0;
      },
      setLink: (_id: number, link: EngineLink) => void this.links.push(link),
      inject: (_id: number, packet: Uint8Array) => void this.injected.push(packet),
      heard: () => this.heard,
      removeLink: () => {},
      [Symbol.asyncDispose]: async () => {},
    } as unknown as Engine;
    const openEngine = (options: EngineOptions) => {
      this.engine = options;
      return engine;
    };
    this.plane = openPlane(
      { wanted: "tun", codec: () => codec },
      {
        ...{ role: "up", port: 7777, portFlag: "--fou-port", ifnamePattern: "gretun%d" },
        encapCsum: "off",
        onDatagram: () => {},
        onFault: (_what, error) => this.faults.push(error),
      },
      { host: Object.assign(memory, { openEngine }), clock: this.clock, log: silentLog },
    );
  }

  async pass(ms: number): Promise<void> {
    await this.clock.until(this.clock.sleep(ms));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.plane[Symbol.asyncDispose]();
  }
}

Deno.test("the user plane starts dead threads again, once for both, unless it is closed", async () => {
  const bench = new Bench();
  bench.engine.onFailed("planted");
  bench.engine.onFailed("planted too");
  strictEqual(bench.restarts, 0);
  await bench.pass(1000);
  strictEqual(bench.restarts, 1);
  deepStrictEqual(bench.faults, [new Error("planted"), new Error("planted too")]);

  bench.engine.onFailed("planted");
  await bench[Symbol.asyncDispose]();
  await bench.pass(1000);
  strictEqual(bench.restarts, 1);
});

Deno.test("the user plane tells what threads use and drop, apart from what they refuse", async () => {
  await using bench = new Bench();
  const { plane } = bench;
  deepStrictEqual(plane.threads?.()?.features, { segments: true });
  deepStrictEqual(plane.threads?.()?.drops.get("no-path"), 3);
  deepStrictEqual([...plane.refused()], [["own-tunnel", 2]]);
});

Deno.test("a codec is told whose packets the threads carried", async () => {
  const heard: string[] = [];
  const codec = Object.assign(new GreCodec(), { heard: (id: string) => void heard.push(id) });
  await using bench = new Bench(codec);
  const link = { id: "alice", remote: parseEndpoint("198.51.100.1:7777") };
  bench.plane.setLink({ ...link, addresses: [], routes: [] });
  await bench.pass(2000);
  deepStrictEqual(heard, []);
  bench.heard = 5;
  await bench.pass(2000);
  bench.heard = 6;
  await bench.pass(2000);
  deepStrictEqual(heard, ["alice", "alice"]);
  bench.plane.removeLink("alice");
  bench.heard = 7;
  await bench.pass(2000);
  strictEqual(heard.length, 2);
});

Deno.test("a codec hears of strangers and sessions, and changes what threads know of a link", async () => {
  const sessions: string[] = [];
  let farId = fromHex("0000000000000001");
  const inner = fromHex("45".padEnd(40, "0"));
  const codec: DataCodec = Object.assign(new GreCodec(), {
    extras: () => ({ farId }),
    onSession: (id: Uint8Array) => void sessions.push(toHex(id)),
    decode: ([first]: Uint8Array) =>
      first === 1
        ? { id: "alice", inner }
        : first === 2
        ? { id: "alice", inner: new Uint8Array(3) }
        : undefined,
  });
  await using bench = new Bench(codec);
  const remote = parseEndpoint("198.51.100.1:7777");
  bench.plane.setLink({ id: "alice", remote, addresses: [], routes: [] });
  deepStrictEqual(bench.links.at(-1)?.farId, farId);
  farId = fromHex("0000000000000002");
  codec.onChanged?.("bob");
  deepStrictEqual(bench.links.length, 1);
  codec.onChanged?.("alice");
  deepStrictEqual(bench.links.at(-1)?.farId, farId);
  for (const first of [1, 2, 3]) bench.engine.onStranger?.(new Uint8Array([first]), remote);
  deepStrictEqual(bench.injected, [inner]);
  deepStrictEqual(bench.plane.refused().get("not-ip"), 1);
  bench.engine.onSession?.(0, fromHex("0102030405060708"), remote);
  deepStrictEqual(sessions, ["0102030405060708"]);
});
