/** Names, addresses and proxies, in virtual time. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { type Endpoint, formatEndpoint, type Ip, parseIp } from "../../../lib/addr.ts";
import type { ByteStream } from "../../../lib/byte_stream.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { Dialer, interleaved, proxyHeaders } from "../../../lib/dial/dialer.ts";
import { DialAgainError, DialError } from "../../../lib/dial/errors.ts";
import { proxyFor } from "../../../lib/dial/proxy.ts";
import { connectBySocks } from "../../../lib/dial/socks.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const never = new AbortController().signal;
const DIRECT = { allowForwarder: true };

/** Servers at some addresses, of which others are dead. */
class Net {
  readonly clock = new VirtualClock();
  /** What happened, with the time. */
  readonly log: string[] = [];
  readonly names: Record<string, string[]> = {};
  /** By "address:port"; what is not here answers nothing. */
  readonly servers: Record<string, "open" | "refuses" | "no route"> = {};
  environment: Record<string, string> = {};
  /** What a proxy answers. */
  proxyAnswer = "HTTP/1.1 200 ok\r\n\r\n";
  open = 0;
  secures: (hostname: string) => void = () => {};

  readonly dialer = new Dialer({
    clock: this.clock,
    lookup: (name) =>
      this.names[name]
        ? Promise.resolve(this.names[name].map(parseIp))
        : Promise.reject(new Error("no such host")),
    connect: (to, signal) => this.#connect(to, signal),
    secure: async (stream, hostname) => {
      this.#note(`TLS ${hostname}`);
      this.secures(hostname);
      return stream;
    },
    environment: (name) => this.environment[name],
  });

  dial(url: string, signal = never) {
    return this.clock.until(this.dialer.dial(new URL(url), DIRECT, signal));
  }

  #note(text: string): void {
    this.log.push(`${this.clock.nowMs()} ${text}`);
  }

  async #connect(to: Endpoint, signal: AbortSignal): Promise<ByteStream> {
    const place = formatEndpoint(to);
    this.#note(place);
    const server = this.servers[place];
    await this.clock.sleep(server ? 10 : 127_000, signal);
    if (server === "refuses") throw new Error("Connection refused");
    if (server === "no route") {
      throw Object.assign(new Error("Network is unreachable"), { name: "NetworkUnreachable" });
    }
    if (!server) throw new Error("Connection timed out");
    this.open++;
    let answer: string | undefined;
    let isClosed = false;
    return {
      write: async (bytes) => {
        const text = new TextDecoder().decode(bytes);
        this.#note(text.split("\r\n\r\n")[0]!.replaceAll("\r\n", " | "));
        answer = this.proxyAnswer;
      },
      read: async () => {
        const text = answer;
        answer = undefined;
        return text === undefined ? undefined : new TextEncoder().encode(text);
      },
      [Symbol.dispose]: () => {
        if (!isClosed) this.open--;
        isClosed = true;
      },
    };
  }
}

Deno.test("interleaved(): families in turn, beginning with the first", () => {
  const cases: [string, string][] = [
    ["", ""],
    ["a1 a2", "a1 a2"],
    ["a1 a2 b1 b2 b3", "a1 b1 a2 b2 b3"],
    ["b1 a1 a2", "b1 a1 a2"],
  ];
  const ip = (name: string): Ip =>
    parseIp(name.replace("a", "192.0.2.").replace("b", "2001:db8::"));
  const ips = (text: string) => text.split(" ").filter((name) => name !== "").map(ip);
  for (const [from, to] of cases) deepStrictEqual(interleaved(ips(from)), ips(to), from);
});

Deno.test("a dead first address costs a quarter of a second", async () => {
  const net = new Net();
  net.names["coord.example"] = ["192.0.2.1", "192.0.2.2"];
  net.servers["192.0.2.2:8443"] = "open";
  await net.dial("http://coord.example:8443");
  deepStrictEqual(net.log, ["0 192.0.2.1:8443", "250 192.0.2.2:8443"]);
  strictEqual(net.clock.nowMs(), 260);
  strictEqual(net.open, 1);
});

Deno.test("both families are tried in turn; the port is the scheme's", async () => {
  const net = new Net();
  net.names["coord.example"] = ["2001:db8::1", "2001:db8::2", "192.0.2.2"];
  net.servers["192.0.2.2:443"] = "open";
  await net.dial("https://coord.example");
  deepStrictEqual(net.log, [
    "0 [2001:db8::1]:443",
    "250 192.0.2.2:443",
    "260 TLS coord.example",
  ]);
});

Deno.test("no address answers: all are named, and why", async () => {
  const net = new Net();
  net.names["coord.example"] = ["192.0.2.1", "2001:db8::1"];
  net.servers["192.0.2.1:80"] = net.servers["[2001:db8::1]:80"] = "refuses";
  await rejects(net.dial("http://coord.example"), {
    message: "no connection to 192.0.2.1:80: connection refused, [2001:db8::1]:80: " +
      "connection refused",
  });
  await rejects(net.dial("http://other.example"), /other.example cannot be resolved: no such host/);
  delete net.servers["192.0.2.1:80"];
  const startMs = net.clock.nowMs();
  await rejects(net.dial("http://coord.example"), /coord.example does not answer/);
  strictEqual(net.clock.nowMs() - startMs, 10_000);
  strictEqual(net.open, 0);
});

Deno.test("the signal ends it with its reason", async () => {
  const net = new Net();
  const stop = new AbortController();
  net.clock.after(100, () => stop.abort(new Error("stopped")));
  await rejects(net.dial("http://192.0.2.1", stop.signal), /stopped/);
});

Deno.test("TLS that fails closes the connection, and may want another one", async () => {
  const net = new Net();
  net.servers["192.0.2.1:443"] = "open";
  net.secures = () => {
    throw new DialError("expired", "renew");
  };
  await rejects(net.dial("https://192.0.2.1"), /expired/);
  strictEqual(net.open, 0);
  let tries = 0;
  net.secures = () => {
    if (++tries === 1) throw new DialAgainError();
  };
  await net.dial("https://192.0.2.1");
  deepStrictEqual([tries, net.open], [2, 1]);
});

// --- proxies

const PROXY = { https_proxy: "http://proxy.example:3128", http_proxy: "proxy.example:3128" };

function behindProxy(): Net {
  const net = new Net();
  net.environment = { ...PROXY };
  net.names["proxy.example"] = ["192.0.2.1", "192.0.2.9"];
  net.servers["192.0.2.9:3128"] = "open";
  return net;
}

Deno.test("a proxy is asked for a tunnel, at any of its addresses; names are its business", async () => {
  const net = behindProxy();
  const { forwarder } = await net.dial("https://coord.example");
  strictEqual(forwarder, undefined);
  deepStrictEqual(net.log, [
    "0 192.0.2.1:3128",
    "250 192.0.2.9:3128",
    "260 CONNECT coord.example:443 HTTP/1.1 | Host: coord.example:443",
    "260 TLS coord.example",
  ]);
});

Deno.test("plain HTTP is forwarded; a WebSocket goes by a tunnel", async () => {
  const net = behindProxy();
  const { forwarder } = await net.dial("http://coord.example:8443");
  strictEqual(forwarder?.hostname, "proxy.example");
  const url = new URL("ws://[2001:db8::1]:8443/v1/relay/ws");
  const dialled = net.dialer.dial(url, { allowForwarder: false }, never);
  strictEqual((await net.clock.until(dialled)).forwarder, undefined);
  strictEqual(
    net.log.at(-1)!.replace(/^\d+ /, ""),
    "CONNECT [2001:db8::1]:8443 HTTP/1.1 | Host: [2001:db8::1]:8443",
  );
});

Deno.test("a proxy that refuses is named, and what to do", async () => {
  const net = behindProxy();
  net.proxyAnswer = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
  await rejects(net.dial("https://coord.example"), (error: unknown) => {
    const { message, hint } = error as DialError;
    strictEqual(message, "the proxy proxy.example:3128 refuses a way to coord.example:443: 407");
    strictEqual(hint.includes("http://NAME:PASSWORD@HOST:PORT"), true);
    return true;
  });
  net.servers["192.0.2.1:3128"] = net.servers["192.0.2.9:3128"] = "refuses";
  await rejects(
    net.dial("https://coord.example"),
    /the proxy proxy.example:3128 cannot be used: no connection to .*refused/,
  );
  strictEqual(net.open, 0);
});

const PROXIES: [string, Record<string, string>, string, string | undefined][] = [
  ["none", {}, "http://a.example", undefined],
  ["by scheme", { http_proxy: "p:1", https_proxy: "q:2" }, "https://a.example", "q:2"],
  ["of a WebSocket", { http_proxy: "p:1", https_proxy: "q:2" }, "wss://a.example", "q:2"],
  ["upper case", { HTTP_PROXY: "http://p:1" }, "http://a.example", "p:1"],
  ["lower case first", { HTTP_PROXY: "p:1", http_proxy: "q:2" }, "http://a.example", "q:2"],
  ["all", { ALL_PROXY: "http://p:1/" }, "https://a.example", "p:1"],
  ["its default port", { http_proxy: "http://p" }, "http://a.example", "p:80"],
  ["by HTTPS", { http_proxy: "https://p" }, "http://a.example", "p:443"],
  ["empty", { http_proxy: "" }, "http://a.example", undefined],
  ["everything excepted", { http_proxy: "p:1", no_proxy: "*" }, "http://a.example", undefined],
  ["a name", { http_proxy: "p:1", NO_PROXY: "b, a.example" }, "http://a.example", undefined],
  ["below a name", { http_proxy: "p:1", no_proxy: ".example" }, "http://a.example", undefined],
  ["not half a name", { http_proxy: "p:1", no_proxy: "xample" }, "http://a.example", "p:1"],
  ["an address", { http_proxy: "p:1", no_proxy: "192.0.2.1" }, "http://192.0.2.1", undefined],
  [
    "an IPv6 address",
    { http_proxy: "p:1", no_proxy: "2001:db8::1" },
    "http://[2001:db8::1]",
    undefined,
  ],
  ["a port", { http_proxy: "p:1", no_proxy: "a.example:80" }, "http://a.example", undefined],
  ["another port", { http_proxy: "p:1", no_proxy: "a.example:81" }, "http://a.example", "p:1"],
  ["this host", { http_proxy: "p:1" }, "http://127.0.0.1:8443", undefined],
];

for (const [name, environment, url, expected] of PROXIES) {
  Deno.test(`proxyFor(): ${name}`, () => {
    const proxy = proxyFor(new URL(url), (name) => environment[name]);
    strictEqual(proxy && `${proxy.hostname}:${proxy.port}`, expected);
  });
}

Deno.test("proxyFor(): name and password; what is of no known kind", async () => {
  const url = new URL("http://a.example");
  const proxy = proxyFor(url, (name) => name === "http_proxy" ? "http://me:p%40ss@p:1" : undefined);
  deepStrictEqual(proxy!.login, { name: "me", password: "p@ss" });
  deepStrictEqual(proxyHeaders(proxy!), { "Proxy-Authorization": `Basic ${btoa("me:p@ss")}` });
  await rejects(
    async () => proxyFor(url, () => "ftp://p:1"),
    /the proxy in http_proxy is of no known kind/,
  );
});

// --- SOCKS

/** A proxy that says these bytes, one piece after each that it gets. */
function socksProxy(...says: string[]): { stream: ByteStream; got: string[] } {
  const got: string[] = [];
  const queue: Uint8Array[] = [];
  return {
    got,
    stream: {
      write: async (bytes) => {
        got.push(toHex(bytes));
        const next = says.shift();
        if (next) queue.push(fromHex(next));
      },
      read: async () => queue.shift(),
      [Symbol.dispose]: () => {},
    },
  };
}

const TARGET = { hostname: "a.example", port: 443 };
const LOGIN = { name: "me", password: "pw" };
const ASKED = "05010003" + "09" + "612e6578616d706c65" + "01bb";
const SOCKS: [string, string[], typeof LOGIN | undefined, string | undefined, string[]][] = [
  ["gives a way", ["0500", "05000001" + "00000000" + "0000"], undefined, undefined, [
    "050100",
    ASKED,
  ]],
  [
    "wants a password",
    ["0502", "0100", "05000003" + "0161" + "0000"],
    LOGIN,
    undefined,
    ["05020002", "01026d65027077", ASKED],
  ],
  ["does not take it", ["0502", "0101"], LOGIN, "it does not take this name and password", [
    "05020002",
    "01026d65027077",
  ]],
  ["wants one, and there is none", ["05ff"], undefined, "it wants a name and password", ["050100"]],
  ["refuses", ["0500", "05020001" + "00000000" + "0000"], undefined, "its rules do not allow it", [
    "050100",
    ASKED,
  ]],
  ["is something else", ["4854"], undefined, "it is no SOCKS 5 proxy", ["050100"]],
];

for (const [name, says, login, why, asked] of SOCKS) {
  Deno.test(`connectBySocks(): a proxy that ${name}`, async () => {
    const { stream, got } = socksProxy(...says);
    strictEqual(await connectBySocks(stream, TARGET, login), why);
    deepStrictEqual(got, asked);
  });
}

Deno.test("a SOCKS proxy forwards nothing by itself, and is named when it refuses", async () => {
  const net = behindProxy();
  net.environment = { all_proxy: "socks5h://proxy.example:3128" };
  await rejects(
    net.dial("http://coord.example"),
    /the proxy proxy.example:3128 gives no way to coord.example: it is no SOCKS 5 proxy/,
  );
  strictEqual(net.open, 0);
});

Deno.test("an IPv4 address is reached by a translator where there is no IPv4", async () => {
  const net = new Net();
  Object.assign(net.servers, {
    "192.0.2.1:8443": "no route",
    "[64:ff9b::c000:201]:8443": "open",
  });
  net.names["ipv4only.arpa"] = ["64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171"];
  using _stream = (await net.dial("http://192.0.2.1:8443")).stream;
  deepStrictEqual(net.log, ["0 192.0.2.1:8443", "10 [64:ff9b::c000:201]:8443"]);
});

Deno.test("without a route and a translator this host's network is to be looked at", async () => {
  for (const known of [undefined, ["192.0.0.170", "192.0.0.171"]]) {
    const net = new Net();
    net.servers["192.0.2.1:8443"] = "no route";
    if (known) net.names["ipv4only.arpa"] = known;
    await rejects(net.dial("http://192.0.2.1:8443"), (error) => {
      ok(error instanceof DialError);
      strictEqual(error.message, "no connection to 192.0.2.1:8443: network is unreachable");
      match(error.hint, /^Check this host's network/);
      return true;
    });
  }
});
