/** `gretun stun` against our own server on loopback addresses. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { formatEndpoint } from "../../../lib/addr.ts";
import { errorLine, exitCode } from "../../../lib/cli/command.ts";
import { command } from "../../../lib/cli/gretun/stun.ts";
import { GretunError, UsageError } from "../../../lib/errors.ts";
import { StunService } from "../../../lib/stun/mod.ts";

/** What the command prints and its exit code. */
async function run(args: string[], signal = new AbortController().signal) {
  let text = "";
  const stdout = (t: string) => void (text += t);
  const code = await command.run(args, { stdout, stderr: () => {}, signal });
  strictEqual(code, 0);
  return text;
}

/** Runs `body` with a STUN server at each of those addresses. */
async function withServers(hostnames: string[], body: (...servers: string[]) => Promise<void>) {
  const stop = new AbortController();
  try {
    const servers = await Promise.all(
      hostnames.map((hostname) =>
        new StunService({ signal: stop.signal }).listen({ hostname, port: 0 })
      ),
    );
    await body(...servers.map(formatEndpoint));
  } finally {
    stop.abort();
    // The server's loop ends with its socket, in a later turn.
    await new Promise((resolve) => setTimeout(resolve));
  }
}

/** A UDP port that nobody answers on. */
function silentPort(hostname: string): Disposable & { port: number } {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  return { port, [Symbol.dispose]: () => socket.close() };
}

function freePort(): number {
  using socket = silentPort("0.0.0.0");
  return socket.port;
}

Deno.test("gretun stun prints address and server, and no mapping from one answer", () =>
  withServers(["127.0.0.1"], async (server) => {
    const port = freePort();
    const text = await run(["--server", server, "--port", String(port)]);
    strictEqual(text, `127.0.0.1:${port}  (via ${server})\n`);
  }));

Deno.test("gretun stun --json prints one line with addr and via", () =>
  withServers(["127.0.0.1"], async (server) => {
    const port = freePort();
    const text = await run(["--server", server, "--port", String(port), "--json"]);
    strictEqual(text, `{"addr":"127.0.0.1:${port}","via":"${server}"}\n`);
  }));

Deno.test("gretun stun tells how the mapping behaves from two addresses or two ports", async () => {
  const cases: [string[], string][] = [
    [["127.0.0.1", "127.0.0.2"], "endpoint-independent"],
    [["127.0.0.1", "127.0.0.1"], "endpoint-independent or address-dependent"],
  ];
  for (const [hostnames, expected] of cases) {
    await withServers(hostnames, async (a, b) => {
      const text = await run(["--server", `${a},${b}`]);
      match(text, new RegExp(`^127\\.0\\.0\\.1:\\d+  \\(via \\S+\\)\nmapping: ${expected}\n$`));
      const { addr, via, mapping } = JSON.parse(await run(["--server", `${a},${b}`, "--json"]));
      match(addr, /^127\.0\.0\.1:\d+$/);
      ok(via === a || via === b);
      strictEqual(mapping, expected);
    });
  }
});

Deno.test("gretun stun asks over IPv6", () =>
  withServers(["::1"], async (server) => {
    const port = freePort();
    const text = await run(["--server", server, "--port", String(port)]);
    strictEqual(text, `[::1]:${port}  (via ${server})\n`);
  }));

Deno.test("gretun stun asks servers of both families over IPv4, from the port that is given", () =>
  withServers(["127.0.0.1", "::1"], async (ipv4, ipv6) => {
    const port = freePort();
    const text = await run(["--server", `${ipv6},${ipv4}`, "--port", String(port)]);
    strictEqual(text, `127.0.0.1:${port}  (via ${ipv4})\n`);
  }));

Deno.test("gretun stun prefers the answer that comes to waiting for a silent server", () =>
  withServers(["127.0.0.1"], async (server) => {
    using silent = silentPort("127.0.0.1");
    const text = await run(["--server", `127.0.0.1:${silent.port}`, "--server", server]);
    ok(text.includes(`(via ${server})`));
  }));

Deno.test("gretun stun fails on one line that says what to do", async () => {
  using silent = silentPort("127.0.0.1");
  using taken = silentPort("0.0.0.0");
  const server = `127.0.0.1:${silent.port}`;
  const cases: [string, string[], number, RegExp][] = [
    ["a name that does not resolve", ["--server", "nosuch.invalid"], 1, /nosuch\.invalid.*DNS/],
    ["no answer", ["--server", server, "--timeout", "200ms"], 1, /no answer from 127.*UDP/],
    ["a port that is taken", ["--server", server, "--port", `${taken.port}`], 1, /--port/],
    ["a server that is no name", ["--server", "a:b"], 2, /"a:b".*HOST:PORT/],
    ["an unknown flag", ["--servers", "a"], 2, /--servers/],
    ["a bad duration", ["--timeout", "5"], 2, /--timeout "5".*500ms/],
    ["a bad port", ["--port", "65536"], 2, /--port 65536.*65535/],
    ["an extra word", ["stun.example"], 2, /"stun\.example"/],
  ];
  for (const [name, args, code, line] of cases) {
    await rejects(run(args), (error) => {
      ok(error instanceof GretunError, name);
      strictEqual(exitCode(error), code, name);
      strictEqual(error instanceof UsageError, code === 2, name);
      const text = errorLine(error);
      deepStrictEqual(text.split("\n"), [text]);
      match(text, line);
      return true;
    });
  }
});

Deno.test("gretun stun stops when it is interrupted", async () => {
  using silent = silentPort("127.0.0.1");
  const controller = new AbortController();
  const done = run(["--server", `127.0.0.1:${silent.port}`], controller.signal);
  setTimeout(() => controller.abort(new Error("SIGINT")));
  await rejects(done, /interrupted/);
});
