/** What a user can do wrong with `gretun up`, tried on the program itself in a bare namespace. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { createNamedNetns, deleteNamedNetns, type Fd, withNetns } from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const GRETUN = new URL("../../gretun", import.meta.url).pathname;
const NAME = `gretun-test-${Deno.pid}-up`;
const URL_OF_NOBODY = "http://127.0.0.1:9";

function inNetns(body: (netns: Fd, dir: string) => Promise<void>): () => Promise<void> {
  return async () => {
    const dir = Deno.makeTempDirSync();
    using netns = createNamedNetns(NAME);
    try {
      withNetns(netns, () => {
        using rtnl = RtNetlink.open();
        rtnl.changeLink(rtnl.link("lo")!.ifindex, { up: true });
      });
      await body(netns, dir);
    } finally {
      deleteNamedNetns(NAME);
      Deno.removeSync(dir, { recursive: true });
    }
  };
}

async function gretun(netns: Fd, args: string[], command = [GRETUN]) {
  const child = withNetns(netns, () =>
    new Deno.Command(command[0]!, {
      args: [...command.slice(1), ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn());
  const timer = setTimeout(() => child.kill("SIGTERM"), 10_000);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Everything that a refused start could have changed. */
function kernelState(netns: Fd): unknown {
  return withNetns(netns, () => {
    using rtnl = RtNetlink.open();
    return { links: rtnl.links().map(({ name }) => name), addresses: rtnl.addresses() };
  });
}

const WRONG: [name: string, args: string[], code: number, message: RegExp][] = [
  ["no coordinator", [], 2, /--coordinator is missing.*Add --coordinator URL/],
  ["empty coordinator", ["--coordinator="], 2, /--coordinator has no value/],
  ["no URL", ["--coordinator", "example.com"], 2, /coordinator.*example\.com/],
  ["a URL of another kind", ["--coordinator", "ftp://x"], 2, /ftp:/],
  ["a port that is none", ["--fou-port", "70000"], 2, /--port 70000.*1 to 65535/],
  ["port 0", ["--fou-port", "0"], 2, /--port 0/],
  ["a port with letters", ["--fou-port", "12ab"], 2, /--port "12ab"/],
  ["an unknown flag", ["--fuo-port", "1"], 2, /unknown flag --fuo-port/],
  ["an extra word", ["now"], 2, /unexpected argument "now"/],
  ["an unknown plane", ["--data-plane", "dpdk"], 2, /--data-plane "dpdk".*auto, fou, tun/],
  ["an unknown key choice", ["--gre-key", "maybe"], 2, /--gre-key "maybe".*on, off/],
  ["a long interface name", ["--iface", "averyverylongname%d"], 2, /--iface/],
  ["an interface name with a slash", ["--iface", "a/b%d"], 2, /--iface/],
  ["a metrics address without port", ["--metrics-addr", "localhost"], 2, /--metrics-addr/],
  ["a STUN server without name", ["--stun-server", ":3478"], 2, /STUN server ".*HOST:PORT/],
  ["a STUN server with a bad port", ["--stun-server", "a:99999"], 2, /STUN server ".*HOST:PORT/],
  ["a name too long", ["--node-name", "n".repeat(300)], 2, /--node-name/],
];

for (const [name, args, code, message] of WRONG) {
  Deno.test(
    `up refuses ${name}`,
    inNetns(async (netns, dir) => {
      const before = kernelState(netns);
      const base = /coordinator|URL/.test(name) ? [] : ["--coordinator", URL_OF_NOBODY];
      const result = await gretun(netns, ["up", ...base, "--state-dir", dir, ...args]);
      match(result.stderr, message);
      strictEqual(result.code, code, result.stderr);
      strictEqual(result.stderr.trimEnd().split("\n").length, 1, result.stderr);
      strictEqual(result.stdout, "");
      deepStrictEqual(kernelState(netns), before);
      deepStrictEqual([...Deno.readDirSync(dir)], []);
    }),
  );
}

const NOBODY = ["--coordinator", URL_OF_NOBODY];
const up = (dir: string, ...args: string[]) => //
["up", ...NOBODY, "--state-dir", dir, "--data-plane", "tun", ...args];

Deno.test(
  "up without privilege says which capability and how to give it",
  inNetns(async (netns, dir) => {
    Deno.chmodSync(dir, 0o777);
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", GRETUN];
    const result = await gretun(netns, up(dir), nobody);
    match(result.stderr, /^Error: gretun up needs CAP_NET_ADMIN\..*root.*setcap.*\n$/);
    strictEqual(result.code, 1);
  }),
);

Deno.test(
  "up says who can be asked when its port is taken",
  inNetns(async (netns, dir) => {
    const socket = withNetns(
      netns,
      () => Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 7777 }),
    );
    const result = await gretun(netns, up(dir));
    socket.close();
    match(result.stderr, /^Error: cannot open UDP port 7777: .*--port.*\n$/);
    strictEqual(result.code, 1);
  }),
);

Deno.test(
  "up refuses keys that others can read, and broken ones",
  inNetns(async (netns, dir) => {
    const file = `${dir}/keys.json`;
    Deno.writeTextFileSync(file, "{}", { mode: 0o600 });
    const broken = await gretun(netns, up(dir));
    match(broken.stderr, /^Error: .*keys\.json.*\n$/);
    strictEqual(broken.code, 1);
    strictEqual(Deno.readTextFileSync(file), "{}", "the file is as it was");
    Deno.chmodSync(file, 0o640);
    const readable = await gretun(netns, up(dir));
    match(readable.stderr, /^Error: .*keys\.json.*chmod 600.*\n$/);
    strictEqual(readable.code, 1);
  }),
);

Deno.test(
  "one daemon a port: up refuses to run twice, and a hub or spoke beside it",
  inNetns(async (netns, dir) => {
    const first = withNetns(
      netns,
      () =>
        new Deno.Command(GRETUN, { args: up(dir), stdout: "null", stderr: "piped" })
          .spawn(),
    );
    try {
      const lines = first.stderr.pipeThrough(new TextDecoderStream()).getReader();
      await lines.read();
      const second = await gretun(netns, up(`${dir}/second`));
      const pid = first.pid;
      const up7777 = `gretun up (pid ${pid}) uses port 7777.`;
      const refusal = `Error: another ${up7777} Stop it first, or choose another port with --port`;
      strictEqual(second.stderr.slice(0, refusal.length), refusal);
      strictEqual(second.code, 1);
      const key = `${dir}/hub.key`;
      await gretun(netns, ["hub", "keygen", "--out", key]);
      const state = ["--port", "7777", "--state-dir", dir, "--data-plane", "tun"];
      const others = [
        ["hub", "--clients", dir, "--address", "10.0.0.1", "--key-file", key],
        ["spoke", "--hub", "127.0.0.1", "--protocol", "ipipou", "--number", "1", "--key-file", key],
      ];
      for (const [role, ...args] of others) {
        const other = await gretun(netns, [role!, ...args, ...state]);
        match(other.stderr, new RegExp(`Error: a running ${up7777.replace(/[().]/g, "\\$&")}`));
        strictEqual(other.code, 1);
      }
      await lines.cancel();
    } finally {
      first.kill("SIGTERM");
      await first.status;
    }
  }),
);

Deno.test(
  "up waits for a coordinator that is away with one warning, and ends cleanly",
  inNetns(async (netns, dir) => {
    const child = withNetns(netns, () =>
      new Deno.Command(GRETUN, {
        args: up(dir),
        stdout: "piped",
        stderr: "piped",
      }).spawn());
    let text = "";
    for await (const part of child.stderr.pipeThrough(new TextDecoderStream())) {
      // It has tried several times by then.
      if (!text.includes("level=warn") && (text + part).includes("level=warn")) {
        setTimeout(() => child.kill("SIGTERM"), 2_000);
      }
      text += part;
    }
    await child.stdout.cancel();
    const { code } = await child.status;
    strictEqual(text.match(/level=warn/g)?.length, 1, text);
    match(text, /coordinator does not answer, trying again.*127\.0\.0\.1:9/);
    strictEqual(code, 0, text);
    const left = [...Deno.readDirSync(dir)].map(({ name }) => name).sort();
    deepStrictEqual(left, ["keys.json", "known.json"]);
  }),
);

Deno.test(
  "peers asks for a daemon that runs",
  inNetns(async (netns, dir) => {
    const result = await gretun(netns, ["peers", "--state-dir", dir]);
    match(result.stderr, /^Error: no daemon answers at .*gretun up.*\n$/);
    strictEqual(result.code, 3);
  }),
);
