import { equal, rejects } from "node:assert/strict";
import { parseIp } from "../../lib/addr.ts";
import { connectTcp } from "../../lib/byte_stream.ts";

const SIGNAL = new AbortController().signal;

function listen() {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  return { listener, port, to: { ip: parseIp("127.0.0.1"), port } };
}

/** As tools/start.js leaves it. */
function early(port: number, connection: Promise<Deno.TcpConn | undefined>): void {
  globalThis.earlyConnection = { hostname: "127.0.0.1", port, connection };
}

Deno.test("connectTcp() takes the connection that was made before, once, and for its place alone", async () => {
  const { listener, port, to } = listen();
  using _listener = listener;
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  early(port, Promise.resolve(connection));
  await rejects(connectTcp({ ...to, port: 1 }, SIGNAL));
  using first = await connectTcp(to, SIGNAL);
  equal(first.connection, connection);
  using second = await connectTcp(to, SIGNAL);
  equal(second.connection === connection, false);
  for (const _ of [first, second]) (await listener.accept()).close();
});

Deno.test("connectTcp() connects anew where nobody answered before", async () => {
  const { listener, port, to } = listen();
  using _listener = listener;
  early(port, Promise.resolve(undefined));
  using _stream = await connectTcp(to, SIGNAL);
  (await listener.accept()).close();
});

Deno.test("connectTcp() that is given up closes what was made before", async () => {
  const { listener, port, to } = listen();
  using _listener = listener;
  const connection = Promise.withResolvers<Deno.TcpConn>();
  early(port, connection.promise);
  const stop = new AbortController();
  const given = rejects(connectTcp(to, stop.signal), /enough/);
  stop.abort(new Error("enough"));
  await given;
  connection.resolve(await Deno.connect({ hostname: "127.0.0.1", port }));
  const accepted = await listener.accept();
  equal(await accepted.read(new Uint8Array(1)), null);
  accepted.close();
});
