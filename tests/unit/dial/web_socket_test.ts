/** Our client's end of a WebSocket against the runtime's server. */
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { systemRandom } from "../../../lib/edges.ts";
import { openWebSocket, systemDialer } from "../../../lib/dial/mod.ts";

const signal = new AbortController().signal;
const open = (port: number, path = "/") =>
  openWebSocket(systemDialer(), new URL(`ws://127.0.0.1:${port}${path}`), systemRandom, signal);

/** Sends back what comes; closes with 4000 when it is told to by a message of one byte. */
function echo() {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    if (new URL(request.url).pathname === "/none") return new Response("no", { status: 426 });
    const { socket, response } = Deno.upgradeWebSocket(request);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (data.byteLength === 1) socket.close(4000, "as you like");
      else socket.send(data);
    };
    return response;
  });
}

Deno.test("openWebSocket(): messages of all lengths go and come, in order", async () => {
  await using server = echo();
  using socket = await open(server.addr.port);
  const lengths = [2, 125, 126, 1400, 65_535, 65_536, 200_000];
  const all = Promise.withResolvers<void>();
  const received: number[] = [];
  socket.start({
    onMessage: (bytes) => {
      strictEqual(bytes.every((byte, i) => byte === (i * 7 & 0xff)), true);
      received.push(bytes.length);
      if (received.length === lengths.length) all.resolve();
    },
    onClosed: (reason) => all.reject(new Error(reason)),
  });
  for (const length of lengths) socket.send(Uint8Array.from({ length }, (_, i) => i * 7));
  await all.promise;
  deepStrictEqual(received, lengths);
  strictEqual(socket.bufferedBytes, 0);
});

Deno.test("openWebSocket(): the server's end is told once, with its reason", async () => {
  await using server = echo();
  using socket = await open(server.addr.port);
  const closed = Promise.withResolvers<string>();
  socket.start({ onMessage: () => {}, onClosed: closed.resolve });
  socket.send(Uint8Array.of(1));
  strictEqual(await closed.promise, "as you like");
});

Deno.test("openWebSocket(): what gives none is told", async () => {
  await using server = echo();
  await rejects(open(server.addr.port, "/none"), /gives no WebSocket: 426/);
  await rejects(open(1), /no connection to 127.0.0.1:1: connection refused/);
});
