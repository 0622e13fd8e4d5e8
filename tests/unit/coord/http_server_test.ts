/** The HTTP server on real sockets: what it serves, whom it closes, and how it ends. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type HttpHandler, HttpServer } from "../../../lib/coord/http_server.ts";
import { HEADER_MS } from "../../../lib/coord/connections.ts";
import { silentLog } from "../../../lib/edges.ts";
import { type ServerAnswer, textAnswer } from "../../../lib/server_http.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

class Bench implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly server: HttpServer;
  readonly port: number;
  readonly events: string[] = [];
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(handle: HttpHandler, maxConnections = 100, hostname = "127.0.0.1") {
    const listener = Deno.listen({ hostname, port: 0 });
    this.port = listener.addr.port;
    this.server = new HttpServer({
      listeners: [listener],
      maxConnections,
      clock: this.clock,
      log: silentLog,
      onEvent: (event) => this.events.push(event),
    });
    this.#running = this.server.run(this.#stop.signal, handle);
  }

  connect(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: "127.0.0.1", port: this.port });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.clock.until(this.#running);
  }
}

const ok200: HttpHandler = () => textAnswer(200, "ok\n");
const request = (path = "/") => new TextEncoder().encode(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);

async function read(conn: Deno.Conn): Promise<string> {
  const bytes = new Uint8Array(4096);
  const length = await conn.read(bytes).catch(() => null);
  return new TextDecoder().decode(bytes.subarray(0, length ?? 0));
}

Deno.test("HttpServer serves several requests on a connection, and tells where they come from", async () => {
  const sources: string[] = [];
  await using bench = new Bench((_, { source }) => {
    sources.push(source);
    return textAnswer(200, "ok\n");
  });
  using conn = await bench.connect();
  for (let i = 0; i < 2; i++) {
    await conn.write(request());
    match(await read(conn), /^HTTP\/1\.1 200 OK\r\n[^]*ok\n$/);
  }
  deepStrictEqual([sources, bench.server.connections], [["127.0.0.1", "127.0.0.1"], 1]);
});

Deno.test("HttpServer tells an IPv4 source as such on a socket for both families", async () => {
  const sources: string[] = [];
  await using bench = new Bench(
    (_, { source }) => {
      sources.push(source);
      return textAnswer(200, "ok\n");
    },
    100,
    "::",
  );
  using conn = await bench.connect();
  await conn.write(request());
  match(await read(conn), /200 OK/);
  deepStrictEqual(sources, ["127.0.0.1"]);
});

Deno.test("HttpServer closes a connection whose head never ends", async () => {
  await using bench = new Bench(ok200);
  using conn = await bench.connect();
  await conn.write(request().subarray(0, 10));
  const closed = read(conn);
  strictEqual(await bench.clock.until(closed), "");
  ok(bench.clock.nowMs() >= HEADER_MS);
});

Deno.test("HttpServer waits for nothing more of who sent a body too slowly", async () => {
  await using bench = new Bench(() => textAnswer(408, "too slow\n"));
  using conn = await bench.connect();
  const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
  await conn.write(new TextEncoder().encode(head));
  match(await bench.clock.until(read(conn)), /408 /);
  strictEqual(await bench.clock.until(read(conn)), "");
  strictEqual(bench.server.connections, 0);
});

Deno.test("HttpServer takes no body whose length is not told, nor one with two lengths", async () => {
  await using bench = new Bench(ok200);
  for (
    const length of [
      "Transfer-Encoding: chunked",
      "",
      "Content-Length: 3\r\nTransfer-Encoding: chunked",
    ]
  ) {
    using conn = await bench.connect();
    const head = ["POST / HTTP/1.1", "Host: x", ...(length ? [length] : []), "", "1\r\n{\r\n"];
    await conn.write(new TextEncoder().encode(head.join("\r\n")));
    match(await bench.clock.until(read(conn)), /^HTTP\/1\.1 4(11|00) /);
    strictEqual(await bench.clock.until(read(conn)), "", length);
  }
  strictEqual(bench.server.connections, 0);
});

Deno.test("HttpServer turns away whom it has no room for, and serves again when there is", async () => {
  const answers = new Map<string, () => void>();
  await using bench = new Bench(({ path }) => {
    const { promise, resolve } = Promise.withResolvers<ServerAnswer>();
    answers.set(path, () => resolve(textAnswer(200, "ok\n")));
    return promise;
  }, 2);
  const ask = async (path: string) => {
    const conn = await bench.connect();
    await conn.write(request(path));
    while (!answers.has(path)) await new Promise((resolve) => setTimeout(resolve, 1));
    return conn;
  };
  using first = await ask("/1");
  using _second = await ask("/2");
  using third = await bench.connect();
  strictEqual(await read(third), "");
  deepStrictEqual(bench.events, ["accepted", "accepted", "refused-full"]);
  answers.get("/1")!();
  match(await read(first), /200 OK/);
  using fourth = await ask("/4");
  answers.get("/4")!();
  match(await read(fourth), /200 OK/);
  answers.get("/2")!();
});

Deno.test("HttpServer tells a handler that its caller hung up", async () => {
  const hungUp = Promise.withResolvers<void>();
  const called = Promise.withResolvers<void>();
  await using bench = new Bench((request) => {
    called.resolve();
    request.signal.addEventListener("abort", () => hungUp.resolve());
    return hungUp.promise.then(() => textAnswer(200, "late\n"));
  });
  const conn = await bench.connect();
  await conn.write(request());
  await called.promise;
  conn.close();
  await hungUp.promise;
});

Deno.test("HttpServer answers what is no HTTP, and a handler that throws, and goes on", async () => {
  let calls = 0;
  await using bench = new Bench(() => {
    if (calls++ === 0) throw new Error("broken");
    return textAnswer(200, "ok\n");
  });
  for (
    const [text, answer] of [["nonsense\r\n\r\n", / 400 /], ["", / 500 /], ["", / 200 /]] as const
  ) {
    using conn = await bench.connect();
    await conn.write(text ? new TextEncoder().encode(text) : request());
    match(await read(conn), answer);
  }
});

Deno.test("HttpServer outlives an accept that fails, and its listener stays open", async () => {
  let fails = 2;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const failing = Object.assign(Object.create(listener), {
    accept: () =>
      fails-- > 0 ? Promise.reject(new Error("Too many open files")) : listener.accept(),
    close: () => listener.close(),
  }) as Deno.Listener;
  const clock = new VirtualClock();
  const events: string[] = [];
  const said: string[] = [];
  const server = new HttpServer({
    listeners: [failing],
    maxConnections: 10,
    clock,
    log: { ...silentLog, error: (message) => said.push(message) },
    onEvent: (event) => events.push(event),
  });
  const stop = new AbortController();
  const running = server.run(stop.signal, ok200);
  const connect = () => Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  // One is turned away, as there is no file for it.
  using first = await connect();
  strictEqual(await clock.until(read(first)), "");
  using second = await connect();
  await second.write(request());
  match(await read(second), /200 OK/);
  deepStrictEqual([events, said.length], [["accept-failed", "accept-failed", "accepted"], 1]);
  stop.abort();
  await clock.until(running);
});
