/** The command lines of hub and spoke: wrong calls, configuration files, keys. */
import { match, ok, strictEqual } from "node:assert/strict";
import { toBase64 } from "../../../lib/bytes.ts";
import { command as hub } from "../../../lib/cli/gretun/hub.ts";
import { type Command, errorLine, exitCode } from "../../../lib/cli/command.ts";
import { command as spoke } from "../../../lib/cli/gretun/spoke.ts";
import { publicKeyOf } from "../../../lib/ed25519.ts";

const KEY = toBase64(new Uint8Array(32).fill(7));
const HUB_KEY = toBase64(publicKeyOf(new Uint8Array(32).fill(9)));

async function run(command: Command, args: string[]) {
  let stdout = "";
  const io = {
    stdout: (text: string) => stdout += text,
    stderr: () => {},
    signal: AbortSignal.abort(),
  };
  try {
    return { code: await command.run(args, io), stdout, line: "" };
  } catch (error) {
    return { code: exitCode(error), stdout, line: errorLine(error) };
  }
}

class Files implements Disposable {
  readonly directory = Deno.makeTempDirSync();

  write(name: string, text: string, mode = 0o600): string {
    const path = `${this.directory}/${name}`;
    Deno.writeTextFileSync(path, text, { mode });
    return path;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.directory, { recursive: true });
  }
}

const WRONG: [Command, string[], RegExp][] = [
  [hub, ["--port", "0"], /--port 0/],
  [hub, ["--port", "x"], /--port "x"/],
  [hub, ["--protocol", "openvpn"], /--protocol "openvpn" is unknown/],
  [hub, ["--data-plane", "gre"], /--data-plane "gre" is unknown/],
  [hub, ["--protocol", "ipipou", "--bind", "::1"], /--bind ::1 is not IPv4/],
  [hub, ["--bind", "eth0"], /--bind "eth0" is no IP address/],
  [hub, ["--address", "10.0.0"], /--address "10.0.0"/],
  [hub, ["--iface", "a/b"], /--iface "a\/b" gives no interface name/],
  [hub, ["--iface", "much-too-long-name%d"], /gives no interface name/],
  [hub, ["--public-address", "1.2.3.4"], /--public-address "1.2.3.4" is not IP:PORT/],
  [hub, ["--keepalive", "10"], /--keepalive "10" is not a duration/],
  [hub, ["--idle", "30s"], /--idle 30s is less than two keepalives/],
  [hub, ["--protocol", "jtunnel"], /--id is missing/],
  [hub, ["--protocol", "jtunnel", "-i", "xyz"], /--id "xyz" is no identifier/],
  [hub, ["--protocol", "jtunnel", "-i", "0000000000000000"], /is no identifier/],
  [hub, ["--key-file", "/nonexistent"], /cannot read \/nonexistent/],
  [hub, ["--config", "/nonexistent.conf"], /cannot read \/nonexistent.conf/],
  [hub, ["--token", "secret"], /unknown flag --token/],
  [hub, ["sh", "-c", "true"], /unexpected argument "sh"/],
  [hub, ["--nonsense"], /unknown flag --nonsense/],
  [hub, ["status", "--port", "99999"], /--port 99999/],
  [hub, ["status", "extra"], /unexpected argument "extra"/],
  [hub, ["keygen", "--out", "/nonexistent/key"], /cannot write \/nonexistent\/key/],
  [hub, ["keygen", "--out", "/dev/full"], /cannot write \/dev\/full: it is there already/],
  [hub, ["--config", "/dev/zero"], /cannot read \/dev\/zero: it is no regular file/],
  [spoke, ["--hub", "192.0.2.1", "--token-file", "/dev/zero"], /it is no regular file/],
  [spoke, [], /--hub is missing/],
  [spoke, ["--hub", "a:b:c"], /--hub "a:b:c" is not HOST:PORT/],
  [spoke, ["--hub", "h:0"], /is not HOST:PORT/],
  [spoke, ["--protocol", "ipipou", "--hub", "2001:db8::1"], /--hub 2001:db8::1 is not IPv4/],
  [spoke, ["--hub", "[2001:db8::1]7788"], /is not HOST:PORT/],
  [spoke, ["--hub", "h", "--hub-id", "0"], /--hub-id "0" is no identifier/],
  [spoke, ["status", "--port", "0"], /--port 0/],
  [spoke, ["--hub", "h", "--name", "a/b"], /--name "a\/b" cannot be a client's name/],
  [spoke, ["--hub", "h", "--hub-key", HUB_KEY], /the private key is missing/],
  [spoke, ["--hub", "h", "--route", "10.0.0.0/33"], /--route "10.0.0.0\/33" is no network/],
  [spoke, ["--hub", "h", "--number", "-1"], /--number -1/],
  [spoke, ["--hub", "h", "prog"], /unexpected argument "prog"/],
  [spoke, ["--protocol", "jtunnel", "-i", "0123456789abcdef", "host"], /--hub is missing/],
];
for (const [command, args, message] of WRONG) {
  const name = command === hub ? "hub" : "spoke";
  Deno.test(`gretun ${name} ${args.join(" ")}: exit 2 and one line`, async () => {
    const { code, line } = await run(command, [...args]);
    match(line, message);
    strictEqual(code, 2, line);
    ok(!line.includes("\n") && line.startsWith("Error: ") && line.endsWith("."), line);
  });
}

Deno.test("gretun spoke: a key without the hub's, files that others can read, keys that are none", async () => {
  using files = new Files();
  const key = files.write("key", `private-key ${KEY}\n`);
  const call = async (args: string[]) => (await run(spoke, ["--hub", "h", ...args])).line;
  match(await call(["--key-file", key]), /--hub-key is missing/);
  const open = files.write("open", KEY, 0o644);
  match(await call(["--key-file", open, "--hub-key", HUB_KEY]), /others can read it/);
  match(await call(["--token-file", files.write("empty", "\n")]), /is empty/);
  const short = files.write("short", "private-key aGVsbG8=");
  const line = await call(["--key-file", short, "--hub-key", HUB_KEY]);
  match(line, /5 bytes, not 32/);
  ok(!line.includes("aGVsbG8"), "no secret in the message");
  match(await call(["--key-file", key, "--hub-key", "abc"]), /--hub-key is not base64/);
  const small = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  match(await call(["--key-file", key, "--hub-key", small]), /--hub-key is no public key: .*order/);
});

Deno.test("--check-config: right ones, and every problem with its line", async () => {
  using files = new Files();
  const good = files.write(
    "good.conf",
    "# a hub\nport 7799\nclients /tmp\nkeepalive = 10s\nverbose\n",
  );
  const right = await run(hub, ["--config", good, "--check-config"]);
  strictEqual(right.code, 0, right.line);
  match(right.stdout, /right/);
  const bad = files.write("bad.conf", "port 7799\nport x\nfoo 1\n\nkeepalive 10x\nbind\n");
  const { code, line } = await run(hub, ["--config", bad, "--check-config"]);
  strictEqual(code, 2);
  for (
    const [number, text] of [[2, "port"], [3, "unknown key foo"], [5, "keepalive"], [6, "bind"]]
  ) {
    ok(line.includes(`bad.conf:${number}: ${text}`), `${number}: ${line}`);
  }
  strictEqual((await run(hub, ["--config", good, "--port", "0", "--check-config"])).code, 2);
});

Deno.test("a file of ipipou's client is understood; its secrets must not be readable", async () => {
  using files = new Files();
  const text = `client
number 3
fou-dev eth0
fou-remote server.example.net:10003
auth-key-b64 ${KEY}
auth-remote-pubkey-b64 ${HUB_KEY}
auth-secret topsecret
tunl-ip 172.28.0.7
tunl-peer-ip 172.28.0.6
auth-lifetime 0
keepalive 25s
`;
  const check = (path: string) =>
    run(spoke, ["--protocol", "ipipou", "--config", path, "--check-config"]);
  const path = files.write("a.conf", text.replace("auth-lifetime 0\n", ""));
  strictEqual((await check(path)).line, "");
  match((await check(files.write("b.conf", text, 0o640))).line, /others can read it/);
});

Deno.test("gretun hub keygen: a pair; --out keeps the private key to its owner, once", async () => {
  const { code, stdout } = await run(hub, ["keygen"]);
  strictEqual(code, 0);
  match(stdout, /^private-key [A-Za-z0-9+/]{43}=\npublic-key [A-Za-z0-9+/]{43}=\n$/);
  using files = new Files();
  const out = `${files.directory}/key`;
  const made = await run(hub, ["keygen", "--out", out]);
  match(made.stdout, /^public-key \S{44}\n$/);
  strictEqual(Deno.statSync(out).mode! & 0o777, 0o600);
  match((await run(hub, ["keygen", "--out", out])).line, /it is there already/);
});

Deno.test("status without a hub, without a spoke: exit 3", async () => {
  using files = new Files();
  for (const [command, role] of [[hub, "hub"], [spoke, "spoke"]] as const) {
    const { code, line } = await run(command, ["status", "--state-dir", files.directory]);
    strictEqual(code, 3);
    match(line, new RegExp(`^Error: no ${role} answers at `));
  }
});
