/** The program with few files: it turns newcomers away, says so, and serves on. */
import { strictEqual } from "node:assert/strict";
import { CoordClient } from "../../../lib/coord/client.ts";
import { systemClock, systemRandom } from "../../../lib/edges.ts";
import { type FakeNode, fakeNode } from "../../fakes/coordinator.ts";
import { CoordinatorProcess } from "../../fakes/coordinator_process.ts";

const NEVER = new AbortController().signal;
const FEW_FILES = 64;
const GAP_MS = 5;

function register(process: CoordinatorProcess, node: FakeNode) {
  const client = new CoordClient({
    url: process.url,
    identity: node,
    clock: systemClock,
    random: systemRandom,
  });
  return client.register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);
}

/** Connections that send that, and wait. */
class Crowd implements Disposable {
  readonly #port: number;
  readonly #text: Uint8Array;
  readonly #connections = new DisposableStack();

  constructor(process: CoordinatorProcess, text: string) {
    this.#port = Number(new URL(process.url).port);
    this.#text = new TextEncoder().encode(text);
  }

  async grow(): Promise<void> {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port: this.#port });
    this.#connections.use(connection);
    await connection.write(this.#text).catch(() => {}); // it was closed
  }

  [Symbol.dispose](): void {
    this.#connections.dispose();
  }
}

Deno.test("idle connections do not keep a node out", async () => {
  await using process = await CoordinatorProcess.start(["--state", ":memory:"], {
    maxFiles: FEW_FILES,
  });
  using crowd = new Crowd(process, "GET / HTTP/1.1\r\n");
  for (let i = 0; i < 3 * FEW_FILES; i++) await crowd.grow();
  const { tunnelIp } = await register(process, await fakeNode("a"));
  strictEqual(tunnelIp.ip, "100.64.0.1");
});

Deno.test("busy ones are told of, and make room when they are over", async () => {
  await using process = await CoordinatorProcess.start(["--state", ":memory:"], {
    maxFiles: FEW_FILES,
  });
  const head = "POST /v1/register HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
  {
    using crowd = new Crowd(process, head);
    // One after the other: who comes while the last one's head is still to be read takes its place.
    while (!process.said.includes('msg="no room for more connections')) {
      await crowd.grow();
      await systemClock.sleep(GAP_MS);
    }
  }
  const node = await fakeNode("a");
  for (let isServed = false; !isServed;) {
    isServed = await register(process, node).then(() => true, () => false);
  }
});
