/** Configuration files and the directory of clients. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { formatCidr } from "../../../lib/addr.ts";
import {
  allowedSources,
  type ClientFile,
  isClientName,
  parseClientFile,
  withoutConflicts,
} from "../../../lib/hub/clients.ts";
import { parseConfig } from "../../../lib/config.ts";
import { configPath, HUB_ALIASES, SPOKE_ALIASES, translate } from "../../../lib/hub/config.ts";

Deno.test("parseConfig() reads keys and values as people write them", () => {
  const text = [
    "# a comment",
    "  # an indented one, which ipipou refuses",
    "port 7788",
    "name=alice",
    "on-up = ip route add 10.0.0.0/8 dev $TUN_DEV_NAME",
    "\tkeepalive\t25s  ",
    "--verbose",
    "token -begins with a dash",
    "windows line\r",
    "",
  ].join("\n");
  deepStrictEqual(parseConfig(text), {
    lines: [
      { line: 3, key: "port", value: "7788" },
      { line: 4, key: "name", value: "alice" },
      { line: 5, key: "on-up", value: "ip route add 10.0.0.0/8 dev $TUN_DEV_NAME" },
      { line: 6, key: "keepalive", value: "25s" },
      { line: 7, key: "verbose" },
      { line: 8, key: "token", value: "-begins with a dash" },
      { line: 9, key: "windows", value: "line" },
    ],
    problems: [],
  });
  deepStrictEqual(parseConfig("port 1\n= 5\nb@d key").problems.map(({ line }) => line), [2, 3]);
});

Deno.test("translate() knows ipipou's names and says which line it does not know", () => {
  const known = ["port", "bind", "iface", "verbose", "lifetime", "address", "reply-on-auth-ok"];
  const ipipou = [
    "s",
    "number 3",
    "fou-local 192.0.2.1:10003@eth0",
    "tunl-dev tun3",
    "auth-lifetime 600",
    "reply-on-auth-ok",
    "nft-table filter",
    "tunl-ip 10.0.0.1",
    "no-such-key 1",
  ].join("\n");
  const result = translate(parseConfig(ipipou).lines, HUB_ALIASES, [...known, "number"]);
  deepStrictEqual(result.lines.map(({ key, value }) => [key, value]), [
    ["number", "3"],
    ["bind", "192.0.2.1"],
    ["port", "10003"],
    ["iface", "tun3"],
    ["lifetime", "600s"],
    ["reply-on-auth-ok", undefined],
    ["address", "10.0.0.1"],
  ]);
  deepStrictEqual(result.problems, [{ line: 9, text: "unknown key no-such-key" }]);
  deepStrictEqual(
    translate(parseConfig("tunl-peer-ip 10.0.0.1").lines, SPOKE_ALIASES, []).lines[0]!.key,
    "hub-address",
  );
  strictEqual(translate(parseConfig("constructor 1").lines, HUB_ALIASES, []).problems.length, 1);
});

const FORMS: [string, [string, string | undefined][]][] = [
  ["keepalive 25", [["keepalive", "25s"]]],
  ["keepalive 25s", [["keepalive", "25s"]]],
  ["encap-csum", [["encap-csum", "on"]]],
  ["encap-csum auto", [["encap-csum", "auto"]]],
  ["no-encap-csum", [["encap-csum", "off"]]],
  ["b 192.0.2.1:10003", [["bind", "192.0.2.1"], ["port", "10003"]]],
  ["r hub.example.net:10003", [["hub", "hub.example.net:10003"]]],
  ["fou-remote-ip 192.0.2.9\nfou-remote-port 10003", [["hub", "192.0.2.9:10003"]]],
  ["fou-remote-port 10003\nfou-remote-ip 192.0.2.9", [["hub", "192.0.2.9:10003"]]],
  ["fou-remote-ip 192.0.2.9", [["hub", "192.0.2.9"]]],
  ["verb 3", [["verbose", undefined]]],
  ["verb 2\nvv\nauth-packet-ttl 5\nauth-by-remote-ip", []],
  ["vvv", [["verbose", undefined]]],
];
for (const [text, expected] of FORMS) {
  Deno.test(`translate() of ipipou's ${JSON.stringify(text)}`, () => {
    const { lines, problems } = translate(parseConfig(text).lines, SPOKE_ALIASES, [
      ...["keepalive", "encap-csum", "bind", "port", "hub", "verbose"],
    ]);
    deepStrictEqual(lines.map(({ key, value }) => [key, value]), expected);
    deepStrictEqual(problems, []);
  });
}

Deno.test("translate() says what belongs in a client's file", () => {
  const text = "auth-remote-pubkey-b64 x\nport 1\nauth-token x\nfou-remote-ip 1.2.3.4\nn 3";
  const { problems } = translate(parseConfig(text).lines, HUB_ALIASES, ["port"]);
  deepStrictEqual(problems, [
    { line: 1, text: "auth-remote-pubkey-b64 belongs in the client's own file" },
    { line: 3, text: "auth-token belongs in the client's own file" },
    { line: 4, text: "fou-remote-ip belongs in the client's own file" },
    { line: 5, text: "n belongs in the client's own file" },
  ]);
});

for (
  const [name, path] of [
    ["home", "/etc/gretun/hub-home.conf"],
    ["./x.conf", "./x.conf"],
    ["../x", "../x"],
    ["/a/b", "/a/b"],
  ]
) {
  Deno.test(`configPath(${name})`, () => strictEqual(configPath("hub", name!), path));
}

const KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

Deno.test("a client's file, all of it", () => {
  const text = `public-key ${KEY}
secret topsecret
remote 192.0.2.1
address 10.90.0.2
hub-address 10.90.0.1
routes 192.168.1.0/24, 10.5.0.0/16
sources 172.16.0.0/12
lifetime 600`;
  const parsed = parseClientFile("alice", text);
  ok("client" in parsed);
  const { client } = parsed;
  strictEqual(client.publicKey!.length, 32);
  deepStrictEqual(client.remote, { ip: "192.0.2.1", port: 0 });
  deepStrictEqual(allowedSources(client).map(formatCidr), [
    "10.90.0.2/32",
    "192.168.1.0/24",
    "10.5.0.0/16",
    "172.16.0.0/12",
  ]);
  strictEqual(client.lifetimeMs, 600_000);
});

Deno.test("ipipou's names in a client's file; an empty file", () => {
  const parsed = parseClientFile("a", `auth-remote-pubkey-b64 ${KEY}\nauth-token-b64 aGVsbG8=`);
  ok("client" in parsed && parsed.client.publicKey);
  strictEqual(new TextDecoder().decode(parsed.client.token), "hello");
  deepStrictEqual(parseClientFile("0123456789abcdef", ""), {
    client: { name: "0123456789abcdef", routes: [] },
  });
});

const BAD: [text: string, line: number, message: RegExp][] = [
  ["public-key abc", 1, /public-key: .*base64/],
  ["public-key aGVsbG8=", 1, /5 bytes, want 32/],
  ["public-key AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1, /public-key: .*small order/],
  ["public-key AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1, /public-key: /],
  ["\nadress 10.0.0.1", 2, /unknown key adress/],
  ["address 10.0.0.999", 1, /address: /],
  ["# x\nroutes 10.0.0.0/8,x", 2, /routes: /],
  ["remote 1.2.3.4:99999", 1, /remote: /],
  ["lifetime soon", 1, /lifetime: "soon"/],
  ["token", 1, /token has no value/],
  ["token-b64 ====", 1, /token/],
  ["__proto__ x", 1, /is not KEY VALUE/],
  ["toString x", 1, /unknown key/],
];
for (const [text, line, message] of BAD) {
  Deno.test(`a client's file is refused: ${JSON.stringify(text)}`, () => {
    const parsed = parseClientFile("alice", text);
    ok("problems" in parsed);
    strictEqual(parsed.problems[0]!.line, line);
    ok(message.test(parsed.problems[0]!.text), parsed.problems[0]!.text);
    ok(!parsed.problems[0]!.text.includes("aGVsbG8"), "no secret in the message");
  });
}

Deno.test("client names", () => {
  for (const name of ["alice", "0123456789abcdef", "a.b-c_d", "A"]) ok(isClientName(name), name);
  for (const name of ["", ".hidden", "a/b", "a b", "x~", "x.swp", "é", "a".repeat(33), "-x"]) {
    ok(!isClientName(name), name);
  }
});

Deno.test("two clients with one address: the second in the order of names is left out", () => {
  const client = (name: string, text: string): ClientFile => {
    const parsed = parseClientFile(name, text);
    ok("client" in parsed);
    return parsed.client;
  };
  const { clients, conflicts } = withoutConflicts([
    client("carol", "address 10.0.0.3\nroutes 10.1.0.0/16\nsources 0.0.0.0/0"),
    client("bob", "address 10.0.0.2"),
    client("alice", "address 10.0.0.2"),
    client("dave", "routes 10.1.0.0/16"),
    client("erin", "routes 10.1.2.0/24\nsources 0.0.0.0/0"),
  ]);
  deepStrictEqual(clients.map(({ name }) => name), ["alice", "carol", "erin"]);
  deepStrictEqual(conflicts, [
    { name: "bob", with: "alice", cidr: "10.0.0.2/32" },
    { name: "dave", with: "carol", cidr: "10.1.0.0/16" },
  ]);
});
