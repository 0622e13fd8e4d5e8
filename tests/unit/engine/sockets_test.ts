/** The engine without devices: its sockets and its first thread, which need no privileges. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { type Endpoint, parseIp } from "../../../lib/addr.ts";
import { toHex } from "../../../lib/bytes.ts";
import { systemClock } from "../../../lib/edges.ts";
import { Engine, type EngineOptions } from "../../../lib/engine/mod.ts";
import { Epoll, SystemError } from "../../../lib/linux/mod.ts";
import { RtNetlink } from "../../../lib/netlink.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
RtNetlink.open()[Symbol.dispose]();
new Epoll()[Symbol.dispose]();

const LOOPBACK = parseIp("127.0.0.1");
const PATIENCE_MS = 20_000;

class End implements AsyncDisposable {
  readonly engine: Engine;
  readonly heard: { text: string; from: Endpoint; port: number }[] = [];

  constructor(options: Partial<EngineOptions> = {}) {
    this.engine = Engine.open({
      ...{ port: 0, bind: LOOPBACK, encapsulation: "gre", control: "all", allowFragments: false },
      onControl: (bytes, from, port) => this.heard.push({ text: toHex(bytes), from, port }),
      onTooBig: () => {},
      onFailed: (reason) => {
        throw new Error(reason);
      },
      ...options,
    });
  }

  get place(): Endpoint {
    return { ip: LOOPBACK, port: this.engine.port };
  }

  async hears(count: number): Promise<void> {
    const endMs = systemClock.nowMs() + PATIENCE_MS;
    while (this.heard.length < count) {
      ok(systemClock.nowMs() < endMs, `${this.heard.length} of ${count} heard`);
      await systemClock.sleep(5);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.engine[Symbol.asyncDispose]();
  }
}

Deno.test("an engine hands signalling on with where it came from, and to which port", async () => {
  await using a = new End();
  await using b = new End();
  const extra = b.engine.openPort();
  a.engine.send(Uint8Array.of(1), b.place);
  await b.hears(1);
  a.engine.send(Uint8Array.of(2), { ip: LOOPBACK, port: extra });
  await b.hears(2);
  deepStrictEqual(b.heard, [
    { text: "01", from: a.place, port: b.engine.port },
    { text: "02", from: a.place, port: extra },
  ]);
  b.engine.send(Uint8Array.of(3), a.place, { localPort: extra });
  await a.hears(1);
  deepStrictEqual(a.heard[0]!.from, { ip: LOOPBACK, port: extra });
});

Deno.test("what a port that is closed was sent is lost, and its engine goes on", async () => {
  await using a = new End();
  await using b = new End();
  const extra = b.engine.openPort();
  b.engine.closePort(extra);
  b.engine.closePort(extra);
  b.engine.send(Uint8Array.of(1), a.place, { localPort: extra });
  b.engine.send(Uint8Array.of(2), a.place);
  await a.hears(1);
  deepStrictEqual(a.heard.map(({ text }) => text), ["02"]);
});

Deno.test("data of no link is dropped and counted, and the engine tells what it uses", async () => {
  const isSignal = { kind: "patterns", any: [{ offset: 0, bytes: Uint8Array.of(0xe7) }] } as const;
  await using a = new End();
  await using b = new End({ control: isSignal });
  const bareGre = Uint8Array.of(0, 0, 8, 0, 0x45, ...new Uint8Array(19));
  a.engine.send(bareGre, b.place);
  a.engine.send(Uint8Array.of(0xe7), b.place);
  await b.hears(1);
  strictEqual(b.engine.drops()["wrong-address"], 1);
  strictEqual(b.engine.features.udpSuperPackets, undefined);
  deepStrictEqual(b.engine.families, [4]);
});

Deno.test("a port that is taken is refused, and one that was given back is free", async () => {
  let port;
  {
    await using a = new End();
    ({ port } = a.engine);
    throws(
      () => new End({ port }),
      (error) => error instanceof SystemError && error.code === "EADDRINUSE",
    );
    await a.engine[Symbol.asyncDispose]();
    a.engine.send(Uint8Array.of(1), a.place); // is lost
  }
  await using again = new End({ port });
  strictEqual(again.engine.port, port);
});
