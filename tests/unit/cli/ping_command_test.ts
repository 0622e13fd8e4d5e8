/** `gretun ping` against a daemon's control socket: words, JSON, exit codes, Ctrl-C. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import type { Ip } from "../../../lib/addr.ts";
import { exitCode } from "../../../lib/cli/command.ts";
import { command } from "../../../lib/cli/gretun/ping.ts";
import {
  controlPath,
  type DaemonReport,
  type PeerReport,
  type PingAnswer,
  type PingWish,
  serveControl,
} from "../../../lib/daemon/control.ts";
import type { NodeKey } from "../../../lib/keys.ts";

const KEY = "ab".repeat(32) as NodeKey;
const BOB: PeerReport = {
  ...{ name: "bob", node_key: KEY, tunnel_ip: "100.64.0.2" as Ip, state: "direct" },
  ...{ path: "direct", endpoint: "203.0.113.4:7777" },
};
const RELAYED: PeerReport = {
  ...BOB,
  ...{ path: "relay-udp", endpoint: "203.0.113.9:3478", why_not_direct: "UDP is blocked" },
};
const REPORT: DaemonReport = {
  ...{ node_key: "cd".repeat(32), node_name: "alice", tunnel_ip: "100.64.0.1/24" },
  ...{ coordinator: "http://x/", state: "running", peers: [BOB] },
};

/** What a user sees of a daemon that answers so. */
async function run(
  args: string[],
  answer: (wish: PingWish) => AsyncIterable<PingAnswer>,
  signal = new AbortController().signal,
) {
  const stateDir = await Deno.makeTempDir();
  try {
    const asked: PingWish[] = [];
    const ping = (peer: string, wish: PingWish) => {
      strictEqual(peer, KEY);
      asked.push(wish);
      return answer(wish);
    };
    await using _served = await serveControl(controlPath(stateDir), {
      report: () => REPORT,
      ping,
      accept: () => Promise.resolve(false),
      down() {},
    });
    let text = "";
    const io = { stdout: (part: string) => void (text += part), stderr() {}, signal };
    const code = await command.run([...args, "--state-dir", stateDir], io);
    return { code, text, asked };
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
}

// deno-lint-ignore require-await
const answers = (list: PingAnswer[]) =>
  async function* () {
    yield* list;
  };

Deno.test("gretun ping says path and time, then the tunnel's", async () => {
  const both = answers([
    { via: "path", rtt_ms: 12.3, peer: BOB },
    { via: "tunnel", rtt_ms: 12.5, peer: BOB },
  ]);
  for (const name of ["bob", "100.64.0.2", KEY.slice(0, 8)]) {
    deepStrictEqual(await run([name], both), {
      code: 0,
      text: "bob (100.64.0.2): direct 203.0.113.4:7777, 12.3 ms\n" +
        "bob (100.64.0.2): through the tunnel, 12.5 ms\n",
      asked: [{ count: 10, untilDirect: true }],
    });
  }
  const { asked } = await run(["-c", "3", "bob"], both);
  deepStrictEqual(asked, [{ count: 3, untilDirect: false }]);
  const { text } = await run(["bob", "--json"], both);
  const lines = text.trim().split("\n").map((line) => JSON.parse(line));
  deepStrictEqual(lines[1], {
    ...{ version: 1, name: "bob", node_key: KEY, tunnel_ip: "100.64.0.2", via: "tunnel" },
    ...{ path: "direct", endpoint: "203.0.113.4:7777", rtt_ms: 12.5 },
  });
});

Deno.test("gretun ping says why a peer is relayed, and fails where nothing answers", async () => {
  const relayed = await run(
    ["bob"],
    answers([
      { via: "path", rtt_ms: 40, peer: RELAYED },
      { via: "tunnel", peer: RELAYED },
    ]),
  );
  deepStrictEqual([relayed.code, relayed.text], [
    1,
    "bob (100.64.0.2): relay 203.0.113.9:3478, 40 ms\n" +
    "bob (100.64.0.2): through the tunnel, no answer\n" +
    "Not direct: UDP is blocked.\n",
  ]);
  const { path: _path, ...away } = { ...BOB, offline: true, last_seen_s: 7200 };
  const offline = await run(["bob"], answers([{ via: "path", peer: away }]));
  deepStrictEqual([offline.code, offline.text], [
    1,
    "bob (100.64.0.2): offline, last seen 2 h ago\n",
  ]);
});

Deno.test("gretun ping refuses what is no peer", async () => {
  await rejects(run(["bbo"], answers([])), { message: 'no peer "bbo"', hint: "Did you mean bob?" });
  await rejects(run(["alice"], answers([])), /alice is this host/);
  await rejects(run(["100.64.0.1"], answers([])), /100.64.0.1 is this host/);
  await rejects(run([], answers([])), /PEER is missing/);
});

Deno.test("gretun ping ends at once when it is interrupted, and so does the daemon's side", async () => {
  const controller = new AbortController();
  const { InterruptedError } = await import("../../../lib/errors.ts");
  let hasEnded = false;
  const silent = async function* () {
    try {
      yield { via: "path", peer: BOB } as const;
      controller.abort(new InterruptedError("interrupted", "Run it again"));
      for (let i = 0; i < 3_000; i++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        yield { via: "path", peer: BOB } as const;
      }
    } finally {
      hasEnded = true;
    }
  };
  const error = await run(["bob"], silent, controller.signal).then(() => undefined, (e) => e);
  match(String(error), /interrupted/);
  strictEqual(exitCode(error), 130);
  for (let i = 0; i < 1_000 && !hasEnded; i++) await new Promise((done) => setTimeout(done, 20));
  ok(hasEnded);
});
