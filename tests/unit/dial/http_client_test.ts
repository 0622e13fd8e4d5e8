/** HTTP/1.1 against raw answers and the runtime's own server. */
import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import type { Dialled } from "../../../lib/dial/dialer.ts";
import { HttpClient, systemDialer } from "../../../lib/dial/mod.ts";

const signal = new AbortController().signal;

/** Answers each request with one of the texts, on as many connections as come. */
async function raw(
  answers: (string | "close")[],
  use: (url: string, requests: readonly string[]) => Promise<void>,
) {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const requests: string[] = [];
  let connections = 0;
  const serve = async (connection: Deno.Conn) => {
    const mine = ++connections;
    const buffer = new Uint8Array(4096);
    for (let length; (length = await connection.read(buffer).catch(() => null)) !== null;) {
      requests.push(`${mine} ${new TextDecoder().decode(buffer.subarray(0, length))}`);
      const answer = answers.shift();
      if (answer !== undefined && answer !== "close") {
        await connection.write(new TextEncoder().encode(answer));
      }
      if (answer === "close" || /Connection: close|^HTTP\/1\.1 299/.test(answer ?? "")) break;
    }
    connection.close();
  };
  const serving: Promise<void>[] = [];
  const accepting = (async () => {
    for await (const connection of listener) serving.push(serve(connection));
  })();
  await use(`http://127.0.0.1:${(listener.addr as Deno.NetAddr).port}`, requests);
  listener.close();
  await accepting;
  await Promise.all(serving);
  return requests;
}

async function get(client: HttpClient, url: string): Promise<string> {
  const response = await client.request(url, { method: "GET", signal });
  return `${response.status} ${await response.text()}`;
}

const BODIES: [string, string, string][] = [
  ["a length", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "200 hi"],
  [
    "chunks",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
    "200 hi!",
  ],
  [
    "headers that the runtime refuses",
    "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nX-B: \u20ac\r\ncontent-length: 2\r\n\r\nhi",
    "200 hi",
  ],
  ["no length", "HTTP/1.1 299 OK\r\n\r\nhi", "299 hi"],
  ["nothing", "HTTP/1.1 204 No Content\r\n\r\n", "204 "],
  [
    "an interim answer",
    "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "200 ",
  ],
];

for (const [name, answer, expected] of BODIES) {
  Deno.test(`HttpClient reads a body with ${name}`, async () => {
    using client = new HttpClient(systemDialer());
    await raw([answer], async (url) => {
      strictEqual(await get(client, url), expected);
      client.forgetConnections();
    });
  });
}

const WRONG: [string, string, RegExp][] = [
  ["no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", /no HTTP/],
  ["an end in the middle", "HTTP/1.1 299 OK\r\ncontent-length: 9\r\n\r\nhi", /in the middle/],
  ["an answer that is too long", `HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n`, /more than 100/],
  [
    "chunks without end",
    "HTTP/1.1 299 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n",
    /in the middle|100 bytes/,
  ],
  ["an alert of TLS", "\x15\x03\x01\x00\x02\x02\x46", /HTTPS is served there/],
  [
    "a redirection",
    "HTTP/1.1 302 x\r\nlocation: http://login/\r\ncontent-length: 0\r\n\r\n",
    /http:\/\/login\//,
  ],
];

for (const [name, answer, expected] of WRONG) {
  Deno.test(`HttpClient refuses ${name}, and keeps no connection`, async () => {
    using client = new HttpClient(systemDialer(), { maxBytes: 100 });
    const requests = await raw([answer], async (url) => {
      await rejects(get(client, url), expected);
    });
    strictEqual(requests.length, 1);
  });
}

Deno.test("HttpClient keeps connections, and takes another when the server has closed one", async () => {
  const OK = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
  using client = new HttpClient(systemDialer());
  const requests = await raw([OK, OK, "close", OK], async (url) => {
    for (let i = 0; i < 3; i++) strictEqual(await get(client, url), "200 ok");
    client.forgetConnections();
  });
  deepStrictEqual(requests.map((text) => text[0]), ["1", "1", "1", "2"]);
});

Deno.test("HttpClient writes a request as it is given, and ends it at the signal", async () => {
  using client = new HttpClient(systemDialer());
  const [text] = await raw([], async (url, requests) => {
    const stop = new AbortController();
    const asked = client.request(`${url}/a?b=c`, {
      method: "POST",
      headers: { "X-Key": "1" },
      body: "ü",
      signal: stop.signal,
    });
    const isWhole = () => requests.some((request) => request.endsWith("ü"));
    while (!isWhole()) await new Promise((resolve) => setTimeout(resolve, 1));
    stop.abort(new Error("enough"));
    await rejects(asked, /enough/);
  });
  match(text!, /^1 POST \/a\?b=c HTTP\/1\.1\r\nHost: 127\.0\.0\.1:\d+\r\nX-Key: 1\r\n/);
  match(text!, /\r\nContent-Length: 2\r\n\r\nü$/);
});

Deno.test("HttpClient and the runtime's server, with a large answer", async () => {
  const large = "x".repeat(3_000_000);
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => new Response(large + await request.text()),
  );
  using client = new HttpClient(systemDialer());
  for (let i = 0; i < 3; i++) {
    const url = `http://127.0.0.1:${server.addr.port}/`;
    const response = await client.request(url, { method: "POST", body: "y", signal });
    strictEqual((await response.text()).length, large.length + 1);
  }
});

Deno.test("HttpClient takes connections that it has made ahead, once each", async () => {
  using client = new HttpClient(systemDialer());
  const answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
  const requests = await raw(Array(4).fill(answer), async (url) => {
    client.prepare(url, 2);
    // While they are being made, and when they are there.
    await Promise.all([get(client, url), get(client, url)]);
    await Promise.all([get(client, url), get(client, url)]);
    client.forgetConnections();
  });
  deepStrictEqual(requests.map((request) => request[0]).sort(), ["1", "1", "2", "2"]);
});

Deno.test("HttpClient closes connections made ahead that nobody takes", async () => {
  const client = new HttpClient(systemDialer());
  const requests = await raw([], (url) => {
    client.prepare(url, 2);
    client[Symbol.dispose]();
    return Promise.resolve();
  });
  deepStrictEqual(requests, []);
});

Deno.test("HttpClient makes a connection again that could not be made ahead", async () => {
  using client = new HttpClient(systemDialer());
  const url = "http://127.0.0.1:9/";
  client.prepare(url, 1);
  await rejects(get(client, url), /no connection to 127\.0\.0\.1:9/);
});

Deno.test("HttpClient: who gives up does not wait for a connection that is being made", async () => {
  const { promise, resolve } = Promise.withResolvers<Dialled>();
  using client = new HttpClient({ dial: () => promise });
  client.prepare("http://coordinator/", 1);
  const asked = new AbortController();
  const request = client.request("http://coordinator/", { method: "GET", signal: asked.signal });
  asked.abort(new Error("given up"));
  await rejects(request, /given up/);
  const closed = Promise.withResolvers<void>();
  const stream = { read: () => new Promise(() => {}), [Symbol.dispose]: closed.resolve };
  resolve({ stream: stream as unknown as Dialled["stream"] });
  client[Symbol.dispose]();
  await closed.promise;
});
