/** The server's end of HTTP/1.1 over a stream in memory. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { ByteStream } from "../../../lib/byte_stream.ts";
import { readHead, serveConnection } from "../../../lib/coord/http_connection.ts";
import { type ServerAnswer, type ServerRequest, textAnswer } from "../../../lib/server_http.ts";
import { settle } from "../../fakes/settle.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);

class Client {
  isRefused = false;
  isClosed = false;
  #sent = "";
  readonly #coming: (Uint8Array | undefined)[] = [];
  #wake: ((bytes: Uint8Array | undefined) => void) | undefined;

  constructor(handle: (request: ServerRequest) => ServerAnswer | Promise<ServerAnswer>) {
    const stream: ByteStream = {
      read: () => {
        if (this.#coming.length > 0) return Promise.resolve(this.#coming.shift());
        return new Promise((resolve) => this.#wake = resolve);
      },
      write: async (bytes) => void (this.#sent += new TextDecoder().decode(bytes)),
      [Symbol.dispose]: () => void (this.isClosed = true),
    };
    void serveConnection({
      stream,
      handle: async (request) => await handle(request),
      onRefused: () => this.isRefused = true,
      date: () => "now",
    });
  }

  /** In one piece; what is answered to it. */
  async sends(text: string | undefined): Promise<string> {
    const bytes = text === undefined ? undefined : bytesOf(text);
    const wake = this.#wake;
    this.#wake = undefined;
    if (wake) wake(bytes);
    else this.#coming.push(bytes);
    await settle();
    const sent = this.#sent;
    this.#sent = "";
    return sent;
  }
}

const GET = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n";
const echo = async (request: ServerRequest) => {
  const { method, path, query, headers } = request;
  return textAnswer(
    200,
    `${method} ${headers.get("host")}${path}${query} ${await bodyOf(request)}`,
  );
};

async function bodyOf(request: ServerRequest): Promise<string> {
  let text = "";
  for (let part; (part = await request.readBody());) {
    text += new TextDecoder().decode(part);
  }
  return text;
}

for (
  const [name, head, status] of [
    ["nonsense", "nonsense", 400],
    ["another version", "GET / HTTP/2.0\r\nHost: x", 400],
    ["a target that is none", "GET a HTTP/1.1\r\nHost: x", 400],
    ["a target of another host", "GET http://y/ HTTP/1.1\r\nHost: x", 400],
    ["no host", "GET / HTTP/1.1", 400],
    ["a header without a colon", "GET / HTTP/1.1\r\nHost: x\r\nfoo", 400],
    ["a space before the colon", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 3", 400],
    ["a header that goes on", "GET / HTTP/1.1\r\nHost: x\r\n y", 400],
    ["a line feed alone", "GET / HTTP/1.1\r\nHost: x\nContent-Length: 3", 400],
    ["two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4", 400],
    ["a length that is none", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3", 400],
    ["no length", "POST / HTTP/1.1\r\nHost: x", 411],
    ["parts", "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", 411],
    [
      "length and parts",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: x",
      411,
    ],
    ["a target that is too long", `GET /${"a".repeat(1024)} HTTP/1.1\r\nHost: x`, 414],
    [
      "headers of ours that are too long",
      `GET / HTTP/1.1\r\nHost: x\r\nX-Gretun-A: ${"a".repeat(600)}\r\nX-Gretun-B: ${
        "b".repeat(600)
      }`,
      431,
    ],
    ["a head that is too long", `GET / HTTP/1.1\r\nHost: x\r\nA: ${"a".repeat(17_000)}`, 431],
  ] as const
) {
  Deno.test(`serveConnection() refuses ${name}, and what comes behind it`, async () => {
    const client = new Client(() => textAnswer(200, "ok"));
    match(await client.sends(`${head}\r\n\r\n${GET}`), new RegExp(`^HTTP/1.1 ${status} [^]*close`));
    deepStrictEqual([client.isRefused, client.isClosed], [true, false]);
    strictEqual(await client.sends(GET), "");
    await client.sends(undefined);
    strictEqual(client.isClosed, true);
  });
}

Deno.test("readHead() keeps of the headers those that somebody reads, however they are written", () => {
  const { headers } = readHead(
    "GET / HTTP/1.1\r\nHOST: x:y\r\nX-Gretun-Node:a\r\nCookie: host:z\r\nx-gretun-node:  b ",
  );
  deepStrictEqual(
    ["host", "X-gretun-node", "gretun-node", "cookie"].map((name) => headers.get(name)),
    ["x:y", "a, b", null, null],
  );
  deepStrictEqual(["Host", "ost", "cookie"].map((name) => headers.has(name)), [true, false, false]);
});

Deno.test("serveConnection() answers requests in their order, in whatever pieces they come", async () => {
  const client = new Client(echo);
  const post = "POST /p HTTP/1.1\r\nHost: y:1\r\nContent-Length: 5\r\n\r\nhello";
  match(
    await client.sends(GET + post + GET),
    /GET x\/a\?b [^]*POST y:1\/p hello[^]*GET/,
  );
  let answer = "";
  for (const byte of post + GET) answer += await client.sends(byte);
  match(answer, /^HTTP\/1.1 200 OK\r\n[^]*content-length: 16\r\n[^]*date: now\r\n[^]*hello[^]*GET/);
  await client.sends(undefined);
  strictEqual(client.isClosed, true);
});

Deno.test("serveConnection() reads no body before it is wanted, and none after the answer", async () => {
  const client = new Client(() => textAnswer(403, "no\n"));
  const answer = await client.sends("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel");
  match(answer, /^HTTP\/1.1 403 Forbidden\r\n[^]*connection: close/);
  deepStrictEqual([await client.sends(`lo${GET}`), client.isRefused], ["", true]);
});

Deno.test("serveConnection() tells who waits to go on", async () => {
  const client = new Client(echo);
  const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
  strictEqual(await client.sends(head), "HTTP/1.1 100 Continue\r\n\r\n");
  match(await client.sends("hi"), /^HTTP\/1.1 200 OK\r\n[^]*POST x\/ hi$/);
});

Deno.test("serveConnection() ends a connection where its client wants that", async () => {
  for (
    const [head, isLast] of [
      ["GET / HTTP/1.1\r\nHost: x", false],
      ["GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Close", true],
      ["GET / HTTP/1.0", true],
      ["GET / HTTP/1.0\r\nConnection: Keep-Alive", false],
    ] as const
  ) {
    const client = new Client(echo);
    match(await client.sends(`${head}\r\n\r\n`), /200 OK/);
    deepStrictEqual([client.isClosed, client.isRefused], [isLast, false], head);
  }
});

Deno.test("serveConnection() sends no body to HEAD, and its length", async () => {
  const client = new Client(() => textAnswer(200, "hello"));
  match(await client.sends(GET.replace("GET", "HEAD")), /content-length: 5\r\n[^]*\r\n\r\n$/);
});

Deno.test("serveConnection() tells a handler that its client has gone, in the middle of a body too", async () => {
  const seen: string[] = [];
  const waiting = new Client((request) => {
    request.signal.addEventListener("abort", () => seen.push("gone"));
    return new Promise(() => {});
  });
  await waiting.sends(GET);
  await waiting.sends(undefined);
  const sending = new Client(async (request) => {
    await bodyOf(request).catch((error) => seen.push(error.message));
    return textAnswer(200, "");
  });
  await sending.sends("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel");
  await sending.sends(undefined);
  deepStrictEqual(seen, ["gone", "the body did not come to its end"]);
});

Deno.test("serveConnection() leaves a connection that is upgraded to who took it", async () => {
  const read: string[] = [];
  const client = new Client((request) => {
    void request.read().then((bytes) => {
      read.push(new TextDecoder().decode(bytes));
      return request.stream.write(bytesOf("other"));
    });
    return { status: 101, headers: { upgrade: "x" }, body: new Uint8Array() };
  });
  const sent = await client.sends(`${GET}more`);
  match(sent, /^HTTP\/1.1 101 Switching Protocols\r\n(?!.*content-length)[^]*\r\n\r\nother$/);
  deepStrictEqual([read, client.isClosed], [["more"], false]);
});
