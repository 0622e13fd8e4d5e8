/** nf_tables against the real kernel; what the nft program reads back is the judge. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { parseCidr, parseIp } from "../../lib/addr.ts";
import { Lab, type LabNode } from "../lab/mod.ts";
import { createNamedNetns, deleteNamedNetns, type Fd, withNetns } from "../../lib/linux/mod.ts";
import * as nft from "../lab/nft.ts";

// Opens libc outside of any test: it stays open, which a test would be blamed for.
nft.Nft.open()[Symbol.dispose]();

const FORWARD: nft.NftChain = {
  name: "forward",
  type: "filter",
  hook: "forward",
  priority: nft.PRIORITY.filter,
  policy: "drop",
};
const PRE: nft.NftChain = {
  name: "pre",
  type: "nat",
  hook: "prerouting",
  priority: nft.PRIORITY.dstnat,
  policy: "accept",
};
const POST: nft.NftChain = {
  ...PRE,
  name: "post",
  hook: "postrouting",
  priority: nft.PRIORITY.srcnat,
};

const match = (left: unknown, right: unknown, op = "==") => ({ match: { op, left, right } });
const field = (protocol: string, name: string) => ({ payload: { protocol, field: name } });
const ip = parseIp;

/** A rule as we write it, and its expressions as nft reads them. */
const RULES: [string, nft.NftRule, unknown[]][] = [
  ["drop everything", { chain: "forward", verdict: "drop" }, [{ drop: null }]],
  [
    "interfaces",
    { chain: "forward", match: [nft.iifname("in"), nft.oifname("out")], verdict: "accept" },
    [match({ meta: { key: "iifname" } }, "in"), match({ meta: { key: "oifname" } }, "out"), {
      accept: null,
    }],
  ],
  [
    "protocol and return",
    { chain: "forward", match: [nft.l4proto("udp")], verdict: "return" },
    [match({ meta: { key: "l4proto" } }, "udp"), { return: null }],
  ],
  [
    "mark and counter without a verdict",
    { chain: "forward", match: [nft.mark(5)], counter: true },
    [match({ meta: { key: "mark" } }, 5), { counter: { packets: 0, bytes: 0 } }],
  ],
  [
    "one connection state",
    { chain: "forward", match: [nft.ctState("new")], verdict: "accept" },
    [match({ ct: { key: "state" } }, "new", "in"), { accept: null }],
  ],
  [
    "several connection states",
    { chain: "forward", match: [nft.ctState("established", "related")], verdict: "accept" },
    [match({ ct: { key: "state" } }, ["established", "related"], "in"), { accept: null }],
  ],
  [
    "addresses",
    {
      chain: "forward",
      match: [nft.saddr(parseCidr("10.1.0.9/20")), nft.daddr(parseCidr("192.0.2.1/32"))],
      verdict: "drop",
    },
    [
      match(field("ip", "saddr"), { prefix: { addr: "10.1.0.0", len: 20 } }),
      match(field("ip", "daddr"), "192.0.2.1"),
      { drop: null },
    ],
  ],
  [
    "ports",
    { chain: "forward", match: [nft.sport("tcp", 80)], verdict: "accept" },
    [match(field("tcp", "sport"), 80), { accept: null }],
  ],
  ["masquerade", { chain: "post", verdict: nft.masquerade() }, [{ masquerade: null }]],
  [
    "masquerade with flags",
    { chain: "post", verdict: nft.masquerade("random", "fully-random") },
    [{ masquerade: { flags: ["random", "fully-random"] } }],
  ],
  [
    "snat",
    {
      chain: "post",
      match: [nft.sport("udp", 5)],
      verdict: nft.snat({ ip: ip("192.0.2.7"), port: 8 }),
    },
    [match(field("udp", "sport"), 5), { snat: { addr: "192.0.2.7", port: 8 } }],
  ],
  [
    "dnat to an address",
    { chain: "pre", match: [nft.iifname("out")], verdict: nft.dnat({ ip: ip("10.0.0.2") }) },
    [match({ meta: { key: "iifname" } }, "out"), { dnat: { addr: "10.0.0.2" } }],
  ],
  [
    "dnat to address and port",
    {
      chain: "pre",
      match: [nft.dport("udp", 7777)],
      verdict: nft.dnat({ ip: ip("10.0.0.2"), port: 7 }),
    },
    [match(field("udp", "dport"), 7777), { dnat: { addr: "10.0.0.2", port: 7 } }],
  ],
];

async function inNamespace(body: (netns: Fd, name: string) => Promise<void> | void) {
  const name = `gretun-test-${Deno.pid}-nft`;
  using netns = createNamedNetns(name);
  try {
    await body(netns, name);
  } finally {
    deleteNamedNetns(name);
  }
}

const openIn = (netns: Fd) => withNetns(netns, () => nft.Nft.open());

type Listed = Record<string, Record<string, unknown>>;

/** What is there, without the kernel's handles. */
async function listed(name: string): Promise<Listed[]> {
  const { success, stdout } = await new Deno.Command("ip", {
    args: ["netns", "exec", name, "nft", "-j", "list", "ruleset"],
  }).output();
  ok(success);
  const { nftables } = JSON.parse(new TextDecoder().decode(stdout)) as { nftables: Listed[] };
  return nftables.slice(1).map((entry) =>
    Object.fromEntries(
      Object.entries(entry).map(([kind, { handle: _, ...rest }]) => [kind, rest]),
    )
  );
}

Deno.test("Nft: nft reads the table as it was meant", () =>
  inNamespace(async (netns, name) => {
    using tables = openIn(netns);
    const table = { family: "ip", name: "t" } as const;
    const chains = [FORWARD, PRE, POST];
    tables.replaceTable({ ...table, chains, rules: RULES.map(([, rule]) => rule) });
    const entries = await listed(name);
    deepStrictEqual(
      entries.filter((entry) => !entry.rule),
      [
        { table },
        ...chains.map(({ name, type, hook, priority: prio, policy }) => ({
          chain: { family: "ip", table: "t", name, type, hook, prio, policy },
        })),
      ],
    );
    for (const chain of chains) {
      const wanted = RULES.filter(([, rule]) => rule.chain === chain.name);
      const rules = entries.filter((entry) => entry.rule?.chain === chain.name);
      strictEqual(rules.length, wanted.length);
      for (const [i, [what, , expr]] of wanted.entries()) {
        deepStrictEqual(rules[i]!.rule!.expr, expr, what);
      }
    }
  }));

Deno.test("Nft: nft reads sets and maps, and the rules that fill and use them", () =>
  inNamespace(async (netns, name) => {
    using tables = openIn(netns);
    const inner = nft.fields("saddr", "sport");
    const udp = nft.l4proto("udp");
    const rule = (chain: string, match: nft.Match[], verdict?: nft.Verdict): nft.NftRule => ({
      chain,
      match: [udp, ...match],
      ...(verdict ? { verdict } : {}),
    });
    tables.replaceTable({
      family: "ip",
      name: "t",
      chains: [FORWARD, PRE, POST],
      sets: [
        { name: "ports", element: ["address", "port"], value: ["port"] },
        { name: "hosts", element: ["port"], value: ["address", "port"] },
        { name: "contacts", element: ["address", "port", "address"] },
      ],
      rules: [
        rule("forward", [
          nft.hasNewDestination(),
          nft.isIn("contacts", nft.fields("daddr", "dport", "saddr")),
        ], "accept"),
        rule("pre", [], nft.dnatTo(nft.mapped("hosts", nft.fields("dport")))),
        rule("post", [nft.add("contacts", nft.fields("saddr", "sport", "daddr"))]),
        rule("post", [nft.add("ports", inner, nft.fields("sport"))]),
        rule("post", [nft.add("ports", inner, nft.newPort("random", { first: 9, count: 4 }))]),
        rule("post", [nft.add("hosts", nft.fields("sport"), inner)]),
        rule("post", [], nft.masqueradeTo(nft.mapped("ports", inner))),
        rule("post", [], nft.snatTo(ip("192.0.2.7"), nft.mapped("ports", inner))),
      ],
    });
    const { stdout } = await new Deno.Command("ip", {
      args: ["netns", "exec", name, "nft", "list", "table", "ip", "t"],
    }).output();
    const lines = new TextDecoder().decode(stdout).split("\n").map((line) => line.trim());
    const known = "ip saddr . udp sport map @ports";
    deepStrictEqual(lines.filter((line) => /^type ipv4|^type inet|udp/.test(line)), [
      "type ipv4_addr . inet_service : inet_service",
      "type inet_service : ipv4_addr . inet_service",
      "type ipv4_addr . inet_service . ipv4_addr",
      "ct status dnat ip daddr . udp dport . ip saddr @contacts accept",
      "dnat ip to udp dport map @hosts",
      "add @contacts { ip saddr . udp sport . ip daddr }",
      "add @ports { ip saddr . udp sport : udp sport }",
      "add @ports { ip saddr . udp sport : numgen random mod 4 offset 9 }",
      "add @hosts { udp sport : ip saddr . udp sport }",
      `meta l4proto udp masquerade to :${known}`,
      `meta l4proto udp snat to 192.0.2.7:${known}`,
    ]);
  }));

Deno.test("Nft replaces a table, leaves others alone, and deletes", () =>
  inNamespace(async (netns, name) => {
    using tables = openIn(netns);
    const named = (name: string, rules: nft.NftRule[]): nft.NftTable => ({
      family: "inet",
      name,
      chains: [FORWARD],
      rules,
    });
    const rules = [{ chain: "forward", verdict: "accept" } as const];
    tables.replaceTable(named("mine", [...rules, ...rules, ...rules]));
    tables.replaceTable(named("other", rules));
    tables.replaceTable(named("mine", rules));
    const count = (entries: Listed[], kind: string, table: string) =>
      entries.filter((entry) => entry[kind]?.table === table).length;
    const replaced = await listed(name);
    deepStrictEqual(["mine", "other"].map((table) => count(replaced, "rule", table)), [1, 1]);
    deepStrictEqual(["mine", "yours"].map((table) => tables.hasTable("inet", table)), [
      true,
      false,
    ]);
    tables.deleteTable("inet", "mine");
    const left = await listed(name);
    deepStrictEqual(left.map((entry) => Object.keys(entry)[0]), ["table", "chain", "rule"]);
    strictEqual(count(left, "rule", "other"), 1);
  }));

Deno.test("Nft says which object failed, and a bad rule leaves the old table", () =>
  inNamespace(async (netns, name) => {
    using tables = openIn(netns);
    const good: nft.NftTable = {
      family: "ip",
      name: "t",
      chains: [FORWARD],
      rules: [{ chain: "forward", verdict: "accept" }],
    };
    const bad = (rule: nft.NftRule): nft.NftTable => ({ ...good, rules: [...good.rules, rule] });
    const cases: [string, () => void, string, RegExp][] = [
      [
        "masquerade outside of nat",
        () => tables.replaceTable(bad({ chain: "forward", verdict: nft.masquerade() })),
        "EOPNOTSUPP",
        /cannot add rule 2 to chain forward of table ip t: EOPNOTSUPP/,
      ],
      [
        "unknown chain",
        () => tables.replaceTable(bad({ chain: "nowhere", verdict: "drop" })),
        "ENOENT",
        /cannot add rule 2 to chain nowhere of table ip t: ENOENT/,
      ],
      [
        "chain at a hook that its type does not have",
        () => tables.replaceTable({ ...good, chains: [{ ...FORWARD, type: "nat" }] }),
        "EOPNOTSUPP",
        /cannot add chain forward to table ip t: /,
      ],
      [
        "no such table",
        () => tables.deleteTable("ip", "nothing"),
        "ENOENT",
        /cannot delete table ip nothing: ENOENT/,
      ],
    ];
    for (const before of ["nothing", "a table"]) {
      if (before === "a table") tables.replaceTable(good);
      const entries = await listed(name);
      for (const [what, call, code, message] of cases) {
        throws(call, (error) => {
          ok(error instanceof nft.NftError, what);
          ok(message.test(error.message), error.message);
          strictEqual(error.code, code);
          return true;
        }, what);
        deepStrictEqual(await listed(name), entries, `${what}, with ${before} before`);
      }
    }
    strictEqual((await listed(name)).length, 3);
  }));

Deno.test("Nft: what the kernel took, it does to packets", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  const outside = lab.publicHost("outside");
  const router = lab.nat("router");
  const inside = lab.host("inside", { behind: router });
  const rules: nft.NftRule[] = [
    {
      chain: "pre",
      match: [nft.iifname("out"), nft.dport("udp", 7000)],
      verdict: nft.dnat({ ip: inside.ip, port: 7001 }),
    },
    { chain: "forward", match: [nft.ctState("established")], verdict: "accept" },
    {
      chain: "forward",
      match: [nft.saddr({ ip: outside.ip, prefixLength: 31 }), nft.dport("udp", 7001)],
      counter: true,
      verdict: "accept",
    },
  ];
  {
    using tables = openIn(router.netns);
    tables.replaceTable({ family: "ip", name: "nat", chains: [FORWARD, PRE], rules });
  }
  using a = listen(inside, 7001);
  using b = listen(outside, 7777);
  const to = (hostname: string, port: number) => ({ transport: "udp", hostname, port }) as const;
  await b.socket.send(new Uint8Array([1]), to(router.ip, 7002)); // dropped
  await b.socket.send(new Uint8Array([2]), to(router.ip, 7000));
  const [bytes, from] = await a.socket.receive();
  deepStrictEqual([bytes[0], { ...from }], [2, to(outside.ip, 7777)]);
  await a.socket.send(new Uint8Array([3]), from);
  const [answer, source] = await b.socket.receive();
  deepStrictEqual([answer[0], { ...source }], [3, to(router.ip, 7000)]);
  const entries = await listed(router.netnsName);
  const counted = entries.filter(({ rule }) => rule?.chain === "forward")[1]!.rule!;
  deepStrictEqual((counted.expr as unknown[]).at(-2), { counter: { packets: 1, bytes: 29 } });
});

function listen(node: LabNode, port: number) {
  const socket = node.within(() =>
    Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port })
  );
  return { socket, [Symbol.dispose]: () => socket.close() };
}
