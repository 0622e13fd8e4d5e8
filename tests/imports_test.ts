/**
 * Which room may import which, by the import lines of all files in lib and of the programs, the
 * dynamic and the type-only ones too. From outside a room only its doors are imported.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { dirname, join, relative } from "node:path";

const ROOT = join(import.meta.dirname!, "..");
const PROGRAMS = ["main.ts", "coord.ts"];
/** Begin a program too, within lib. */
const ENTRIES = ["lib/cli/gretun/up_program.ts"];

/** Files directly in lib are leaves, but for netlink's door; the programs are a room of their own. */
type Room = string;

/** Besides itself and leaves. */
const MAY_IMPORT: Record<Room, Room[]> = {
  leaf: [],
  linux: [],
  engine: ["linux"],
  netlink: ["linux"],
  nft: ["linux", "netlink"],
  host: ["engine", "linux", "netlink", "nft"],
  peer: ["coord", "stun"],
  disco: [],
  service: [],
  stun: [],
  dial: [],
  relay: ["stun", "dial", "linux", "netlink", "nft"],
  policy: [],
  coord: ["relay", "dial", "policy"],
  links: ["linux", "netlink"],
  tunnel: ["links", "linux", "netlink"],
  health: ["links", "linux", "netlink"],
  lab: ["linux", "netlink", "nft"],
  portmap: ["linux", "netlink"],
  dataplane: ["engine", "host", "links", "linux", "netlink", "nft", "policy"],
  hub: ["host", "links", "linux", "netlink", "dataplane"],
  netcheck: ["stun", "portmap", "coord", "dial", "linux", "netlink"],
  daemon: [
    ...["disco", "dial", "stun", "peer", "portmap", "relay", "dataplane", "coord", "host"],
    ...["health", "links", "linux", "netlink", "policy"],
  ],
  cli: [
    ...["linux", "netlink", "stun", "portmap", "coord", "tunnel", "health", "lab", "dataplane"],
    ...["daemon", "dial", "host", "hub", "links", "relay", "netcheck"],
    ...["service", "policy"],
  ],
  program: ["stun", "coord", "dial", "relay", "cli", "linux"],
};

/** The files of a room that others may import; `mod.ts` where it is not said otherwise. */
const DOORS: Record<Room, string[]> = {
  // The second one is for threads, which load no more than they need.
  linux: ["lib/linux/mod.ts", "lib/linux/bulk.ts"],
  netlink: ["lib/netlink.ts"],
  daemon: ["mod", "control", "metrics"].map((door) => `lib/daemon/${door}.ts`),
  relay: ["lib/relay/mod.ts", "lib/relay/serve.ts"],
  // The second one is for flags.
  dataplane: ["mod", "kinds"].map((door) => `lib/dataplane/${door}.ts`),
  // The others are for who knows what a policy says, and reads none.
  policy: ["mod", "policy", "access"].map((door) => `lib/policy/${door}.ts`),
  coord: ["api", "server", "client", "serve"].map((door) => `lib/coord/${door}.ts`),
};

interface Import {
  from: string;
  to: string;
  isDynamic: boolean;
}

/** What breaks a rule above, and why it is right all the same. */
const EXCEPTIONS: { from: string; to: string; why: string }[] = [];

function roomOf(file: string): Room {
  const [top, room, ...rest] = file.split("/");
  if (top !== "lib") return "program";
  if (rest.length === 0) return room === "netlink.ts" ? "netlink" : "leaf";
  return room!;
}

function isDoor(file: string): boolean {
  const room = roomOf(file);
  // Programs are made of commands, each of which is a file of its own.
  if (room === "leaf" || room === "cli") return true;
  return (DOORS[room] ?? [`lib/${room}/mod.ts`]).includes(file);
}

function isAllowed({ from, to }: Import): boolean {
  const [room, target] = [roomOf(from), roomOf(to)];
  if (room === target) return true;
  const isRoomAllowed = target === "leaf" || MAY_IMPORT[room]?.includes(target) === true;
  return isRoomAllowed && isDoor(to);
}

const isException = ({ from, to }: Import) =>
  EXCEPTIONS.some((exception) => exception.from === from && exception.to === to);

/** Rooms and files that meet clock, timers, randomness, files, sockets and the like. */
const EDGES = [
  ...["lib/cli/", "lib/lab/", "lib/dataplane/", "lib/engine/", "lib/hub/system/", "lib/linux/"],
  "lib/service/apply.ts", // changes files and runs systemctl
  "lib/state_dir.ts",
  "lib/edges.ts",
  "lib/netlink/rtnl.ts", // groups links to change them at once
  "lib/control_socket.ts",
  "lib/daemon/key_file.ts", // is a file
  "lib/relay/server.ts", // owns its UDP ports
  "lib/relay/stand_in.ts", // a WebSocket and a UDP socket of loopback
  ...["lib/coord/client.ts", "lib/coord/http_server.ts", "lib/coord/sqlite.ts"],
  ...["main.ts", "coord.ts"],
  "lib/dial/system.ts", // the real network
  "lib/dial/openssl.ts", // a library of the host
  "lib/dial/tls.ts", // the TLS of the runtime
  "lib/dial/trust.ts", // reads files
  "lib/node_require.ts", // is of Node
  "lib/lookup.ts", // asks the system's resolver
  "lib/byte_stream.ts", // is a connection
  "lib/stun/server.ts", // owns a socket
  "lib/netcheck/socket.ts", // is a socket
  "lib/portmap/net.ts", // the sockets of port mapping
  "lib/http.ts", // gives a server that stops a time limit
  "lib/listen.ts", // knows the runtime's errors
];
/** Pure, though the rest of their rooms is at the edge. */
const PURE = [
  ...[
    "arena",
    "cipher",
    "encapsulation",
    "icmp_error",
    "join",
    "packet",
    "segment",
    "sum",
    "sum_binary",
    "tables",
  ]
    .map((name) => `lib/engine/${name}.ts`),
];
const WORLD =
  /\bDeno\.|\bfetch\(|\bset(?:Timeout|Interval)\(|\bDate\.now\(|\bMath\.random\(|\bconsole\.|\bperformance\.|\bgetRandomValues\(|["']node:(?!path)/;

// --- reading

function sourceFiles(directory: string): string[] {
  return [...Deno.readDirSync(join(ROOT, directory))].flatMap(({ name, isDirectory }) => {
    const path = `${directory}/${name}`;
    if (isDirectory) return sourceFiles(path);
    return path.endsWith(".ts") ? [path] : [];
  });
}

/** Comments may quote imports in examples. */
function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*[^]*?\*\//gm, "").replace(/^\s*\/\/.*$/gm, "");
}

function specifiersIn(text: string): { specifier: string; isDynamic: boolean }[] {
  const code = withoutComments(text);
  const fixed = /^(?:import|export)\b[^;"']*?(?:\bfrom\s*)?["']([^"']+)["']/gm;
  const dynamic = /\b(?:import|new URL)\(\s*["']([^"']+)["']/g;
  return [
    ...[...code.matchAll(fixed)].map((m) => ({ specifier: m[1]!, isDynamic: false })),
    ...[...code.matchAll(dynamic)].map((m) => ({ specifier: m[1]!, isDynamic: true })),
  ];
}

function importsOf(file: string): Import[] {
  return specifiersIn(Deno.readTextFileSync(join(ROOT, file)))
    .filter(({ specifier }) => specifier.startsWith(".") && specifier.endsWith(".ts"))
    .map(({ specifier, isDynamic }) => {
      const to = relative(ROOT, join(ROOT, dirname(file), specifier));
      return { from: file, to, isDynamic };
    });
}

const FILES = [...sourceFiles("lib"), ...PROGRAMS];
const IMPORTS = FILES.flatMap(importsOf);
const line = ({ from, to }: Import) => `${from} imports ${to}`;

// --- the rules

Deno.test("specifiersIn() reads every kind of import", () => {
  const text = `
    // import "./comment.ts";
/** import { a } from "./example.ts"; */
import "./bare.ts";
import { a } from "./a.ts";
import type { B } from "./b.ts";
import {
  c,
  d,
} from "./c.ts";
import * as e from "./e.ts";
export { f } from "./f.ts";
export * from "./g.ts";
export const text = 1;
const h = await import("./h.ts");
new Worker(new URL("./w.ts", import.meta.url));
type I = import("./i.ts").I;
`;
  const found = specifiersIn(text).map(({ specifier }) => specifier);
  const names = ["bare", "a", "b", "c", "e", "f", "g", "h", "w", "i"];
  deepStrictEqual(found, names.map((name) => `./${name}.ts`));
});

Deno.test("every room has its rule, and every file but a door is imported by another", () => {
  const rooms = new Set(FILES.map(roomOf));
  for (const room of rooms) ok(MAY_IMPORT[room], `lib/${room} has no rule`);
  ok(IMPORTS.length > 100, `${IMPORTS.length} imports found`);
  const imported = new Set(IMPORTS.map(({ to }) => to));
  const alone = FILES.filter((file) =>
    !imported.has(file) && ![...PROGRAMS, ...ENTRIES].includes(file)
  );
  deepStrictEqual(alone.filter((file) => !file.endsWith("/mod.ts")), []);
});

Deno.test("imports go in the allowed directions, and through doors", () => {
  const wrong = IMPORTS.filter((i) => !isAllowed(i) && !isException(i)).map(line);
  deepStrictEqual([...new Set(wrong)], []);
});

Deno.test("every exception is still one", () => {
  const used = new Set(IMPORTS.filter((i) => !isAllowed(i)).map(line));
  const stale = EXCEPTIONS.map((e) => line({ ...e, isDynamic: false })).filter((l) => !used.has(l));
  deepStrictEqual(stale, []);
});

Deno.test("the programs load a command only when it is chosen", () => {
  const loaded = IMPORTS.filter(({ from, isDynamic }) => from === "main.ts" && !isDynamic);
  /** What every program has. */
  const frame = /^lib\/(errors|cli\/(command|nearest|program))\.ts$/;
  deepStrictEqual(loaded.map(({ to }) => to).filter((to) => !frame.test(to)), []);
  const program = "lib/cli/coord/program.ts";
  const ofCoord = IMPORTS.filter(({ from, isDynamic }) => from === program && !isDynamic);
  deepStrictEqual(ofCoord.map(({ to }) => to).filter((to) => !frame.test(to)), []);
});

Deno.test("no two files import each other, however far around", () => {
  const targets = new Map<string, string[]>();
  for (const { from, to } of IMPORTS) targets.set(from, [...targets.get(from) ?? [], to]);
  const finished = new Set<string>();
  const visit = (file: string, path: string[]): void => {
    strictEqual(path.includes(file) ? [...path, file].join(" -> ") : "", "");
    if (finished.has(file)) return;
    for (const to of targets.get(file) ?? []) visit(to, [...path, file]);
    finished.add(file);
  };
  for (const file of FILES) visit(file, []);
});

Deno.test("what is not at the edge takes the world as arguments", () => {
  const isPure = (file: string) =>
    PURE.includes(file) || !EDGES.some((edge) => file.startsWith(edge));
  const meets = (file: string) =>
    WORLD.exec(withoutComments(Deno.readTextFileSync(join(ROOT, file))))?.[0];
  const wrong = FILES.filter(isPure).flatMap((file) => {
    const found = meets(file);
    return found ? [`${file} has ${found}`] : [];
  });
  deepStrictEqual(wrong, []);
});
