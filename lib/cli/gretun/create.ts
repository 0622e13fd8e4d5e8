/** `gretun create`: a tunnel, or many from a file, made whole or not at all. */
import { errorText, GretunError, UsageError } from "../../errors.ts";
import {
  createTunnels,
  DEFAULT_TTL,
  formatStep,
  listTunnels,
  MAX_KEY,
  openHost,
  type Plan,
  planTunnels,
  type Step,
  type TunnelHost,
  type TunnelSpec,
  validateTunnel,
} from "../../tunnel/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import {
  flag,
  flagsHelp,
  type FlagSpecs,
  flagValues,
  parseFlags,
  withPositional,
} from "../flags.ts";
import { requireNetAdmin } from "../privilege.ts";
import { lockTunnels, tryLockTunnels } from "./tunnel_lock.ts";

const TUNNEL_FLAGS = {
  name: flag.text("NAME", "interface name", { required: true, isWord: true }),
  local: flag.text("IP", "outer address of this host", { required: true }),
  remote: flag.text("IP", "outer address of the other host", { required: true }),
  type: flag.choice(
    ["gre", "gretap", "ipip", "sit", "ip6gre", "ip6gretap", "ip6tnl"],
    "gre",
    "gre, gretap, ipip or sit; over IPv6 ip6gre, ip6gretap or ip6tnl",
    { placeholder: "TYPE" },
  ),
  "tunnel-ip": flag.list("CIDR", "address in the tunnel, as in 10.0.0.1/30; repeatable"),
  route: flag.list("CIDR", "network behind the other host; repeatable"),
  key: key("GRE key in both directions, 0 for none"),
  ikey: key("GRE key of packets that come in"),
  okey: key("GRE key of packets that go out"),
  csum: flag.on("GRE checksums"),
  seq: flag.on("GRE sequence numbers"),
  ttl: flag.text("N", "outer TTL, or inherit", { default: String(DEFAULT_TTL) }),
  tos: flag.text("N", "outer TOS, or inherit", { default: "0" }),
  dev: flag.text("DEVICE", "device that outer packets leave by"),
  pmtudisc: flag.on("forbid outer fragments, so that the path's MTU is found", { default: true }),
  mtu: flag.integer("N", "576 to 9000; 0 measures the way to the other host", {
    min: 0,
    max: MAX_KEY,
    default: 0,
  }),
  encap: flag.choice(["none", "fou", "gue"], "none", "outer UDP encapsulation"),
  "encap-sport": port(0, "outer UDP source port; 0, the default, is chosen per flow"),
  "encap-dport": port(0, "outer UDP destination port"),
  "encap-csum": flag.on("outer UDP checksum", { default: true }),
  "fou-port": port(1, "local UDP port to receive on (default that of --encap-dport)"),
} as const satisfies FlagSpecs;

const MODE_FLAGS = {
  "dry-run": flag.on("print the steps as ip commands and change nothing"),
  json: flag.on("JSON on standard output"),
  verbose: flag.on("print each step on standard error", { short: "v" }),
} as const satisfies FlagSpecs;

const BATCH_FLAG = {
  batch: flag.text(
    "FILE",
    "make a tunnel of each line, a JSON object of flags; - is standard input",
  ),
} as const satisfies FlagSpecs;

const NOTE = `A step that fails takes all others back, of a batch too. The MTU is that of the way to
the other host less what the tunnel adds. With --encap a UDP port is opened, shared by all tunnels
that use it, and closed with the last of them, if it was gretun that opened it.

A line of --batch: {"name":"t1","local":"192.0.2.1","remote":"192.0.2.2","tunnel-ip":["10.0.0.1/30"]}
`;

function key(help: string) {
  return flag.integer("N", help, { min: 0, max: MAX_KEY });
}

function port(min: number, help: string) {
  return flag.integer("PORT", help, { min, max: 65535 });
}

export const command: Command = {
  summary: "make a tunnel between two known hosts",
  help: () =>
    "Usage: gretun create NAME --local IP --remote IP [flags]\n" +
    "       gretun create --batch FILE [flags]\n\n" +
    `${flagsHelp({ ...TUNNEL_FLAGS, ...BATCH_FLAG, ...MODE_FLAGS })}\n\n${NOTE}`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const { specs, flags } = isBatch(args) ? await parseBatch(args) : parseOne(args);
  const isDry = flags["dry-run"];
  if (!isDry) requireNetAdmin("create");
  using _lock = isDry ? undefined : tryLockTunnels() ?? await lockTunnels(io.signal);
  using host = openHost();
  if (isDry) {
    const plan = planTunnels(host, specs);
    warn(plan, io);
    io.stdout(flags.json ? planJson(plan) : plan.steps.map((s) => formatStep(s) + "\n").join(""));
    return EXIT_OK;
  }
  const onStep = (step: Step) => flags.verbose && io.stderr(`${formatStep(step)}\n`);
  const plan = createTunnels(host, specs, onStep);
  warn(plan, io);
  io.stdout(flags.json ? createdJson(host, specs, flags.isBatch) : createdText(plan, specs));
  return EXIT_OK;
}

interface Order {
  specs: TunnelSpec[];
  flags: { "dry-run": boolean; json: boolean; verbose: boolean; isBatch: boolean };
}

function warn({ warnings }: Plan, io: CommandIo): void {
  for (const warning of warnings) io.stderr(`Warning: ${warning}.\n`);
}

// --- reading

const isBatch = (args: string[]) => args.some((arg) => /^--batch(=|$)/.test(arg));

function parseOne(args: string[]): Order {
  const specs = { ...TUNNEL_FLAGS, ...MODE_FLAGS };
  const flags = parseFlags(withPositional(args, "name", specs), specs);
  return { specs: [validateTunnel(flags)], flags: { ...flags, isBatch: false } };
}

async function parseBatch(args: string[]): Promise<Order> {
  const alone = args.map((arg) => /^--([^=]+)/.exec(arg)?.[1]).find((name) =>
    name !== undefined && Object.hasOwn(TUNNEL_FLAGS, name)
  );
  if (alone) {
    throw new UsageError(`--${alone} cannot be with --batch`, "Say it in the lines of the file");
  }
  const flags = parseFlags(args, { ...BATCH_FLAG, ...MODE_FLAGS });
  const file = flags.batch!;
  const specs = parseLines(await readText(file));
  if (specs.length === 0) {
    throw new UsageError(
      `--batch ${JSON.stringify(file)} has no tunnels`,
      "Write one on each line",
    );
  }
  return { specs, flags: { ...flags, isBatch: true } };
}

async function readText(file: string): Promise<string> {
  try {
    return file === "-"
      ? await new Response(Deno.stdin.readable).text()
      : await Deno.readTextFile(file);
  } catch (error) {
    throw new UsageError(
      `--batch ${JSON.stringify(file)} cannot be read: ${errorText(error)}`,
      "Give a file of JSON lines, or - for standard input",
      { cause: error },
    );
  }
}

/** Exported for the benchmark; throws `UsageError` with the number of the line. */
export function parseLines(text: string): TunnelSpec[] {
  return text.split("\n").flatMap((line, i) => line.trim() === "" ? [] : [parseLine(line, i + 1)]);
}

function parseLine(line: string, number: number): TunnelSpec {
  try {
    return validateTunnel(flagValues(givenBy(line), TUNNEL_FLAGS));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`line ${number}: ${error.message}`, error.hint, { cause: error });
  }
}

/** A line's members as flags of the same names, with _ or - in them. */
function givenBy(line: string): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(parseObject(line))) {
    const name = key.replaceAll("_", "-");
    if (!Object.hasOwn(TUNNEL_FLAGS, name)) {
      throw new UsageError(`unknown flag --${name}`, "Use the flags of gretun create --help");
    }
    const { type } = TUNNEL_FLAGS[name as keyof typeof TUNNEL_FLAGS];
    given[name] = type === "boolean" ? booleanOf(name, value) : textsOf(name, value);
  }
  return given;
}

function booleanOf(name: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw new UsageError(
    `--${name} ${JSON.stringify(value)} is neither true nor false`,
    "Write true or false, without quotes",
  );
}

function textsOf(name: string, value: unknown): string[] {
  return (Array.isArray(value) ? value : [value]).map((v) => {
    if (typeof v === "string" || typeof v === "number") return String(v);
    throw new UsageError(
      `--${name} ${JSON.stringify(v)} is no value of a flag`,
      "Give a string, a number, or an array of them",
    );
  });
}

function parseObject(line: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  const start = line.length > 40 ? line.slice(0, 40) + "..." : line;
  throw new UsageError(
    `${JSON.stringify(start)} is no JSON object`,
    'Write a line as in {"name":"t1","local":"192.0.2.1","remote":"192.0.2.2"}',
  );
}

// --- printing

function planJson({ steps, warnings }: Plan): string {
  const commands = steps.map(formatStep);
  return JSON.stringify({ dry_run: true, commands, steps, warnings }, null, 2) + "\n";
}

/** As `list` shows them: what the kernel made of it. */
function createdJson(host: TunnelHost, specs: TunnelSpec[], isBatch: boolean): string {
  const names = new Set(specs.map(({ name }) => name));
  const created = listTunnels(host).filter(({ name }) => names.has(name));
  return JSON.stringify(isBatch ? created : created[0], null, 2) + "\n";
}

function createdText({ steps }: Plan, specs: TunnelSpec[]): string {
  if (specs.length > 1) return `created ${specs.length} tunnels\n`;
  const link = steps.find((step) => step.do === "add-link");
  if (!link || !specs[0]) throw new GretunError("nothing was created", "Give a tunnel");
  const { name, kind, local, remote, encap, addresses, routes } = specs[0];
  const behind = encap ? ` encap=${encap.type} dport=${encap.dport}` : "";
  return `created ${kind} tunnel ${name}: ${local} -> ${remote} mtu=${link.mtu}${behind}\n` +
    addresses.map(({ ip, prefixLength }) => `assigned ${ip}/${prefixLength} to ${name}\n`)
      .join("") +
    routes.map(({ ip, prefixLength }) => `routed ${ip}/${prefixLength} through ${name}\n`).join("");
}
