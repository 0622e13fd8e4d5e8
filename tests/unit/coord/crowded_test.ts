/** The program with few files: it turns newcomers away, says so, and serves on. */
import { strictEqual } from "node:assert/strict";
import { CoordClient } from "../../../lib/coord/client.ts";
import { systemClock, systemRandom } from "../../../lib/edges.ts";
import { type FakeNode, fakeNode } from "../../fakes/coordinator.ts";
import { CoordinatorProcess } from "../../fakes/coordinator_process.ts";

const NEVER = new AbortController().signal;
const FEW_FILES = 64;

function register(process: CoordinatorProcess, node: FakeNode) {
  const client = new CoordClient({
    url: process.url,
    identity: node,
    clock: systemClock,
    random: systemRandom,
  });
  return client.register({ discoKey: node.discoKey, nodeName: node.name }, NEVER);
}

/** Each sends that, and waits. */
async function connect(process: CoordinatorProcess, text: string): Promise<Deno.Conn> {
  const port = Number(new URL(process.url).port);
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(text)).catch(() => {});
  return connection;
}

Deno.test("idle connections do not keep a node out", async () => {
  await using process = await CoordinatorProcess.start(["--state", ":memory:"], {
    maxFiles: FEW_FILES,
  });
  const connections: Deno.Conn[] = [];
  for (let i = 0; i < 3 * FEW_FILES; i++) {
    connections.push(await connect(process, "GET / HTTP/1.1\r\n"));
  }
  const { tunnelIp } = await register(process, await fakeNode("a"));
  strictEqual(tunnelIp.ip, "100.64.0.1");
  for (const connection of connections) connection.close();
});

Deno.test("busy ones are told of, and make room when they are over", async () => {
  await using process = await CoordinatorProcess.start(["--state", ":memory:"], {
    maxFiles: FEW_FILES,
  });
  const head = "POST /v1/register HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
  const connections: Deno.Conn[] = [];
  while (!process.said.includes('msg="no room for more connections')) {
    connections.push(await connect(process, head));
  }
  for (const connection of connections) connection.close();
  const node = await fakeNode("a");
  for (let isServed = false; !isServed;) {
    isServed = await register(process, node).then(() => true, () => false);
  }
});
