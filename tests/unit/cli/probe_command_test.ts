/** `gretun probe` and `gretun health` as commands: wrong calls, and loopback without a network. */
import { match, ok, rejects, strictEqual } from "node:assert/strict";
import { errorLine, exitCode } from "../../../lib/cli/command.ts";
import { command as health } from "../../../lib/cli/gretun/health.ts";
import { command as probe } from "../../../lib/cli/gretun/probe.ts";
import { parseHost, resolveHost } from "../../../lib/cli/resolve.ts";
import { GretunError } from "../../../lib/errors.ts";

async function refused(command: typeof probe, args: string[], expected: RegExp, code = 2) {
  let printed = "";
  const io = {
    stdout: (text: string) => void (printed += text),
    stderr: () => {},
    signal: new AbortController().signal,
  };
  const name = args.join(" ");
  await rejects(command.run(args, io), (error) => {
    ok(error instanceof GretunError, `${name}: ${error}`);
    strictEqual(exitCode(error), code, name);
    const line = errorLine(error);
    strictEqual(line.split("\n").length, 1, name);
    match(line, expected, name);
    return true;
  });
  strictEqual(printed, "", name);
}

Deno.test("gretun probe refuses a wrong call with the flag, the value and the rule", async () => {
  const cases: [string[], RegExp][] = [
    [[], /--target is missing.*--target HOST, or --http URL/],
    [["--target"], /--target has no value/],
    [["--target="], /--target has no value/],
    [["--target", "a b"], /--target "a b" is not a host name/],
    [["--target", "http://a/"], /--target "http:\/\/a\/" is not a host name/],
    [["--target", "a\nb"], /--target "a\\nb" is not a host name/],
    [["--target", "x".repeat(254)], /--target "x+" is not a host name/],
    [["--target", "10.0.0.256"], /--target "10\.0\.0\.256" is not a whole IPv4 address/],
    [["--target", "10.1"], /--target "10\.1" is not a whole IPv4 address/],
    [["--target", "10.0.0.2/24"], /--target "10\.0\.0\.2\/24" is not a host name/],
    [["--target", "fd00:::2"], /--target "fd00:::2" is not a host name/],
    [["--target", "0.0.0.0"], /--target "0\.0\.0\.0" is not the address of one host/],
    [["--target", "::"], /--target "::" is not the address of one host/],
    [["--target", "224.0.0.1"], /--target "224\.0\.0\.1" is not the address of one host/],
    [["--target", "ff02::1"], /--target "ff02::1" is not the address of one host/],
    [["--target", "255.255.255.255"], /--target "255.* is not the address of one host/],
    [["--target", "fe80::1"], /--target fe80::1 is link-local/],
    [["--target", "fe80::1%eth0"], /--target "fe80::1%eth0" has a zone/],
    [["--target", "::1", "--family", "4"], /--target ::1 is not an address of --family 4/],
    [["--target", "::1", "--family", "5"], /--family "5" is unknown.*any, 4, 6/],
    [["--target", "::1", "--count", "0"], /--count 0.*from 1 to 1000000/],
    [["--target", "::1", "--count", "-1"], /--count -1.*from 1 to 1000000/],
    [["--target", "::1", "--count", "1.5"], /--count "1\.5"/],
    [["--target", "::1", "--count", "1000001"], /--count 1000001/],
    [["--target", "::1", "--threshold", "0"], /--threshold 0.*from 1/],
    [["--target", "::1", "--threshold", "4"], /--threshold 4 is more than --count 3/],
    [["--target", "::1", "--timeout", "0s"], /--timeout "0s" is too short.*1ms to 1m/],
    [["--target", "::1", "--timeout", "61s"], /--timeout "61s" is too long.*1ms to 1m/],
    [["--target", "::1", "--timeout", "2"], /--timeout "2" is not a duration/],
    [["--target", "::1", "--timeout", "-2s"], /--timeout "-2s" is not a duration/],
    [["--target", "::1", "--interval", "0ms"], /--interval "0ms" is too short.*1ms to 1h/],
    [["--target", "::1", "--interval", "2h"], /--interval "2h" is too long/],
    [["--target", "::1", "--size", "7"], /--size 7.*from 8 to 65507/],
    [["--target", "::1", "--size", "65508"], /--size 65508.*from 8 to 65507/],
    [["--target", "::1", "--tcp", "0"], /--tcp 0.*from 1 to 65535/],
    [["--target", "::1", "--tcp", "65536"], /--tcp 65536/],
    [["--target", "::1", "--tcp", "ssh"], /--tcp "ssh"/],
    [["--target", "::1", "--tcp", "22", "--size", "9"], /--size cannot be given with --tcp/],
    [["--target", "::1", "--first-byte"], /--first-byte is for --tcp only/],
    [["--http", "http://a/", "--target", "a"], /--target cannot be given with --http/],
    [["--http", "http://a/", "--tcp", "80"], /--tcp cannot be given with --http/],
    [["--http", "http://a/", "--size", "80"], /--size cannot be given with --http/],
    [["--http", "http://a/", "--family", "6"], /--family cannot be given with --http/],
    [["--http", "http://a/", "--first-byte"], /--first-byte is for --tcp only/],
    [["--http", "a.example"], /--http "a\.example" is not a URL of HTTP/],
    [["--http", "ftp://a/"], /--http "ftp:\/\/a\/" is not a URL of HTTP/],
    [["--http", "http://"], /--http "http:\/\/" is not a URL of HTTP/],
    [["--targets", "a"], /unknown flag --targets/],
    [["10.0.0.2", "10.0.0.3"], /unexpected argument "10\.0\.0\.3"/],
  ];
  for (const [args, expected] of cases) await refused(probe, args, expected);
});

Deno.test("gretun health refuses a wrong call with the flag, the value and the rule", async () => {
  const cases: [string[], RegExp][] = [
    [["--target", "t0"], /--target "t0" is not ADDRESS or NAME=ADDRESS/],
    [["--target", "t0="], /--target "t0=" is not ADDRESS or NAME=ADDRESS/],
    [["--target", "=10.0.0.2"], /--target "=10\.0\.0\.2" is not ADDRESS or NAME=ADDRESS/],
    [["--target", "t0=far.example"], /--target "t0=far\.example" is not ADDRESS/],
    [["--target", "t0=0.0.0.0"], /--target "t0=0\.0\.0\.0" is not the address of one host/],
    [["--target", "ff02::1"], /--target "ff02::1" is not the address of one host/],
    [["--target", "10.0.0.2,10.0.0.3"], /--target "10\.0\.0\.3" is the second one without a name/],
    [["--target", "t=::2", "--target", "t=::3"], /--target "t=::3" is the second one for t\./],
    [["--interval", "99ms"], /--interval "99ms" is too short.*100ms to 1h/],
    [["--interval", "5"], /--interval "5" is not a duration/],
    [["--interval", "-5s"], /--interval "-5s" is not a duration/],
    [["--concurrency", "0"], /--concurrency 0.*from 1 to 1000/],
    [["--concurrency", "-1"], /--concurrency -1/],
    [["--timeout", "0s"], /--timeout "0s" is too short/],
    [["--timeout", "2m"], /--timeout "2m" is too long/],
  ];
  for (const [args, expected] of cases) await refused(health, args, expected);
});

Deno.test("gretun probe says that a name does not resolve", () =>
  refused(probe, ["--target", "nosuch.invalid"], /cannot resolve nosuch\.invalid: .*DNS/, 1));

Deno.test("resolveHost() gives addresses of the family that is asked for", async () => {
  const { signal } = new AbortController();
  const local = parseHost("target", "localhost");
  strictEqual(await resolveHost(local, { family: 4, signal }), "127.0.0.1");
  strictEqual(await resolveHost(parseHost("target", "::ffff:10.0.0.2"), { signal }), "10.0.0.2");
  const stopped = AbortSignal.abort(new Error("stopped"));
  await rejects(resolveHost(local, { signal: stopped }), /stopped/);
});

/** Runs `gretun probe`; a thrown error is its exit code 1. */
async function run(args: string[]) {
  let stdout = "";
  const io = {
    stdout: (text: string) => void (stdout += text),
    stderr: () => {},
    signal: new AbortController().signal,
  };
  try {
    return { code: await probe.run(args, io), stdout, line: "" };
  } catch (error) {
    return { code: exitCode(error), stdout, line: errorLine(error) };
  }
}

Deno.test("gretun probe --tcp connects, and waits for the first byte if asked to", async () => {
  const greeter = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns: Deno.Conn[] = [];
  const serve = async (listener: Deno.Listener, greeting: string) => {
    for await (const conn of listener) {
      conns.push(conn);
      if (greeting) await conn.write(new TextEncoder().encode(greeting));
    }
  };
  const served = [serve(greeter, "SSH-2.0-x\r\n"), serve(silent, "")];
  const port = (listener: Deno.Listener) => String((listener.addr as Deno.NetAddr).port);
  const base = ["--target", "127.0.0.1", "--interval", "1ms", "--timeout", "500ms", "--tcp"];
  const cases: [string, Deno.Listener, string[], number, RegExp][] = [
    [
      "connects",
      silent,
      [],
      0,
      /^probe 1: 127\.0\.0\.1:\d+ rtt=\d+\.\d\dms\n[^]*3\/3 answered, 0% lost/,
    ],
    ["first byte", greeter, ["--first-byte"], 0, /3\/3 answered/],
    ["no first byte", silent, ["--first-byte"], 1, /error=no answer in 0\.5s\n[^]*0\/3 answered/],
  ];
  for (const [name, listener, args, code, expected] of cases) {
    const result = await run([...base, port(listener), ...args]);
    strictEqual(result.code, code, `${name}: ${result.stdout}`);
    match(result.stdout, expected, name);
  }
  const closed = port(greeter);
  greeter.close();
  silent.close();
  await Promise.all(served);
  for (const conn of conns) conn.close();
  const refused = await run([...base, closed, "--json"]);
  strictEqual(refused.code, 1);
  match(refused.line, /127\.0\.0\.1:\d+ is unhealthy: 0 of 3 probes were answered, 2 needed\. /);
  const report = JSON.parse(refused.stdout);
  strictEqual(report.results[0].error, "Connection refused");
  strictEqual(report.healthy, false);
});

Deno.test("gretun probe --http tells the status, shows no password, follows no redirect, ignores proxies", async () => {
  const asked: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { pathname } = new URL(request.url);
    asked.push(pathname);
    strictEqual(request.headers.get("authorization"), `Basic ${btoa("user:secret")}`);
    const status = Number(pathname.slice(1));
    return new Response("text", { status, headers: { location: "/200" } });
  });
  const base = `http://user:secret@127.0.0.1:${server.addr.port}`;
  Deno.env.set("http_proxy", "http://127.0.0.1:1");
  const options = ["--count", "1", "--json"];
  for (const [status, code] of [[200, 0], [301, 0], [404, 1], [503, 1]] as const) {
    const result = await run(["--http", `${base}/${status}`, ...options]);
    strictEqual(result.code, code, result.stdout);
    ok(!`${result.stdout}${result.line}`.includes("secret"));
    const { results: [{ rtt_ms, ...first }], healthy } = JSON.parse(result.stdout);
    strictEqual(first.status, status);
    strictEqual(healthy, code === 0);
    strictEqual(first.success, healthy);
    strictEqual(typeof rtt_ms, healthy ? "number" : "undefined");
  }
  strictEqual(asked.join(), "/200,/301,/404,/503");
  await server.shutdown();
});
