/** What `gretun hub` and `gretun spoke` read alike: configuration files, secrets, programs. */
import { type Ip, parseIp } from "../../addr.ts";
import { fromBase64 } from "../../bytes.ts";
import { HUB_PLANES } from "../../dataplane/kinds.ts";
import { type ConfigProblem, parseConfig, problemsText } from "../../config.ts";
import { whoAnswers } from "../../control_socket.ts";
import { errorText, GretunError, UsageError } from "../../errors.ts";
import { readSecretFile, readText } from "../secret_file.ts";
import {
  type Alias,
  askControl,
  configPath,
  controlPath,
  type HubReport,
  isClientName,
  type Role,
  type SpokeReport,
  translate,
} from "../../hub/mod.ts";
import { type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagNames, type FlagSpecs, parseFlags } from "../flags.ts";
import { METRICS_FLAG } from "../listen.ts";
import { LOG_FLAGS } from "../log.ts";
import { wordAfter, wordOfLine } from "../settings.ts";
import { RUNTIME_DIRS, runtimeDir } from "./runtime_dir.ts";

export const DEFAULT_PORT = 7788;
export const DEFAULT_STATE_DIR = runtimeDir() ?? RUNTIME_DIRS[0];
/** Timers and the control socket wait for no longer while data flows through this process. */
export const BUSY_MS = 4;
export const PROTOCOLS = ["gretun", "ipipou", "jtunnel"] as const;

/** Flags of both commands. */
export const COMMON_FLAGS = {
  config: flag.text(
    "NAME",
    "read /etc/gretun/{hub,spoke}-NAME.conf, or a path with a slash; flags win",
  ),
  "check-config": flag.on("check the configuration and exit"),
  protocol: flag.choice(PROTOCOLS, "gretun", "what is spoken"),
  "data-plane": flag.choice(
    ["auto", ...HUB_PLANES],
    "auto",
    "kernel GRE or IPIP over FOU, or user space",
  ),
  port: flag.integer("PORT", `UDP port of signalling and data (default ${DEFAULT_PORT})`, {
    short: "p",
    min: 1,
    max: 65535,
  }),
  bind: flag.text("IP", "local address; needed where this host has several", { short: "b" }),
  id: flag.text("HEX", "jtunnel: own identifier, 16 digits", { short: "i" }),
  address: flag.text("IP", "own address in the tunnel"),
  mtu: flag.integer("BYTES", "MTU of links (default: what the way leaves)", {
    min: 576,
    max: 65535,
  }),
  "encap-csum": flag.choice(
    ["auto", "on", "off"],
    "auto",
    "kernel planes: checksum of outer packets",
  ),
  "allow-fragments": flag.on("user space: outer packets may be fragmented"),
  encrypt: flag.choice(
    ["on", "off"],
    "on",
    "user space: encrypt data; authenticated either way; on if one end says so",
  ),
  "key-file": flag.text("FILE", "own private key: see gretun hub keygen; or GRETUN_PRIVATE_KEY"),
  "secret-file": flag.text("FILE", "secret shared besides keys; or GRETUN_SECRET"),
  program: flag.text(
    "'PROGRAM ARGS'",
    "run for each link, split at blanks; for configuration files: else it stands after --",
  ),
  "program-must-succeed": flag.on("a link whose program fails goes (default: it stays)"),
  "program-grace": flag.duration("TIME", "between SIGTERM and SIGKILL for programs", {
    default: 5000,
  }),
  "on-up": flag.text("COMMAND", "shell command when a link is there"),
  "on-down": flag.text("COMMAND", "shell command when a link goes"),
  "state-dir": flag.text("DIR", "control socket, state", { default: DEFAULT_STATE_DIR }),
  ...METRICS_FLAG,
  ...LOG_FLAGS,
} as const satisfies FlagSpecs;

/** Keys of files that are secrets: never on the command line. */
const SECRET_KEYS = ["token", "token-b64", "private-key", "secret"];
const SECRET_ALIASES: Record<string, string> = {
  "auth-token": "token",
  "auth-token-b64": "token-b64",
  "auth-key-b64": "private-key",
  "auth-secret": "secret",
};

export interface Settings<S extends FlagSpecs> {
  flags: ReturnType<typeof parseFlags<S>>;
  /** Of the configuration file. */
  secrets: Record<string, string>;
  /** Words after the flags: program and arguments, and jtunnel's address and port. */
  rest: string[];
}

/** Flags of `hub status` and `spoke status`. */
export const STATUS_FLAGS = {
  port: flag.integer("VALUE", "the running one's", {
    short: "p",
    min: 1,
    max: 65535,
    default: DEFAULT_PORT,
  }),
  "state-dir": flag.text("DIR", "the running one's", { default: DEFAULT_STATE_DIR }),
  json: flag.on("JSON on standard output"),
} as const satisfies FlagSpecs;

/** The report of the one that runs as JSON, or as `format` has it. */
export async function showStatus<R extends Role>(
  role: R,
  args: string[],
  io: CommandIo,
  format: (report: (HubReport | SpokeReport) & { role: R }) => string,
): Promise<number> {
  const flags = parseFlags(args, STATUS_FLAGS);
  const place = { stateDir: await stateDirOfRunning(flags, role), port: flags.port, role };
  const report = await askControl(place) as (HubReport | SpokeReport) & { role: R };
  io.stdout(flags.json ? JSON.stringify(report, null, 2) + "\n" : format(report));
  return EXIT_OK;
}

/** Of root's own, or else of the service's, unless another directory is named. */
export async function stateDirOfRunning(
  { "state-dir": named, port }: { "state-dir": string; port: number },
  role: Role,
): Promise<string> {
  if (named !== DEFAULT_STATE_DIR) return named;
  for (const directory of RUNTIME_DIRS) {
    const who = await whoAnswers(controlPath(directory, role, port));
    if (who !== "nobody") return directory;
  }
  return named;
}

/** Throws `UsageError`; problems of the file name its line. */
export function readSettings<const S extends FlagSpecs>(
  role: Role,
  args: string[],
  specs: S,
  aliases: Record<string, Alias>,
): Settings<S> {
  const { words, rest, isMarked } = splitWords(args, specs);
  const settings = withConfig(role, words, specs, aliases);
  if (rest.length > 0 && !isMarked && settings.flags.protocol !== "jtunnel") {
    throw new UsageError(
      `unexpected argument ${JSON.stringify(rest[0])}`,
      "Put a program and its arguments after --",
    );
  }
  return { ...settings, rest };
}

function withConfig<const S extends FlagSpecs>(
  role: Role,
  words: string[],
  specs: S,
  aliases: Record<string, Alias>,
): Omit<Settings<S>, "rest"> {
  const name = wordAfter(words, "config");
  if (name === undefined) return { flags: parseFlags(words, specs), secrets: {} };
  const path = configPath(role, name);
  const { fromFile, secrets, problems } = readConfig(path, specs, aliases);
  if (problems.length > 0) {
    throw new UsageError(
      problemsText(path, problems),
      `Correct the file: gretun ${role} --help tells the keys`,
    );
  }
  const given = flagNames(words, specs);
  const isHidden = (name: string) => specs[name]!.type !== "list" && given.includes(name);
  const others = fromFile.filter((word) => !flagNames([word], specs).some(isHidden));
  return { flags: parseFlags([...others, ...words], specs), secrets };
}

/** Flags before the first word that is none; "--" ends them too. */
function splitWords(args: readonly string[], specs: FlagSpecs) {
  const takesValue = (word: string) =>
    Object.entries(specs).some(([name, spec]) =>
      spec.type !== "boolean" && (word === `--${name}` || word === `-${spec.short}`)
    );
  let i = 0;
  while (i < args.length && args[i]!.startsWith("-") && args[i] !== "--") {
    i += takesValue(args[i]!) ? 2 : 1;
  }
  const isMarked = args[i] === "--";
  return { words: args.slice(0, i), rest: args.slice(isMarked ? i + 1 : i), isMarked };
}

function readConfig(path: string, specs: FlagSpecs, aliases: Record<string, Alias>) {
  let text, mode;
  try {
    ({ text, mode } = readText(path));
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    throw new UsageError(`cannot read ${path}: ${errorText(cause)}`, "Check --config", { cause });
  }
  const parsed = parseConfig(text);
  const problems: ConfigProblem[] = [...parsed.problems];
  const secrets: Record<string, string> = {};
  // A hub's tokens are in its clients' files.
  const secretKeys = "token-file" in specs ? SECRET_KEYS : ["private-key", "secret"];
  const plain = parsed.lines.filter(({ line, key, value }) => {
    const name = SECRET_ALIASES[key] ?? key;
    if (!secretKeys.includes(name)) return true;
    if (value === undefined) problems.push({ line, text: `${key} has no value` });
    else secrets[name] = value;
    return false;
  });
  if (Object.keys(secrets).length > 0 && (mode & 0o077) !== 0) {
    problems.push({ line: 1, text: `has a secret and others can read it: run chmod 600 ${path}` });
  }
  const known = Object.keys(specs).filter((name) => !["config", "check-config"].includes(name));
  const translated = translate(plain, aliases, known);
  problems.push(...translated.problems);
  const fromFile: string[] = [];
  for (const line of translated.lines) {
    const word = wordOfLine(line, specs);
    if (typeof word === "string") fromFile.push(word);
    else problems.push(word);
  }
  problems.sort((a, b) => a.line - b.line);
  return { fromFile, secrets, problems };
}

/** Program and arguments: what stands after the flags wins. */
function programOf(flag: string | undefined, rest: string[]): string[] {
  return rest.length > 0 ? rest : (flag ?? "").split(/\s+/).filter((word) => word !== "");
}

/** From the file's own key, the file that a flag names, or the environment, in this order of power. */
export function readSecret(
  file: string | undefined,
  variable: string,
  inConfig: string | undefined,
): string | undefined {
  if (file !== undefined) return readSecretFile(file);
  return Deno.env.get(variable) || inConfig;
}

/** 32 bytes of base64; never quotes them. */
export function parseKey(
  what: string,
  text: string,
  hint = "Make one with: gretun hub keygen",
): Uint8Array {
  let bytes;
  try {
    bytes = fromBase64(text.trim());
  } catch {
    throw new UsageError(`${what} is not base64`, hint);
  }
  if (bytes.length === 32) return bytes;
  throw new UsageError(`${what} has ${bytes.length} bytes, not 32`, hint);
}

export function parseIpFlag(flag: string, text: string): Ip {
  try {
    return parseIp(text);
  } catch {
    throw new UsageError(`--${flag} ${JSON.stringify(text)} is no IP address`, "Give one address");
  }
}

/** IPIP over UDP, which ipipou's protocol is, has IPv4 outside. */
function parseBind(text: string, protocol: string): Ip {
  const ip = parseIpFlag("bind", text);
  if (protocol !== "ipipou" || !ip.includes(":")) return ip;
  throw new UsageError(`--bind ${ip} is not IPv4`, "ipipou's protocol has IPv4 outside");
}

export function checkName(name: string): string {
  if (isClientName(name)) return name;
  throw new UsageError(
    `--name ${JSON.stringify(name)} cannot be a client's name`,
    "Use up to 32 letters, digits, ., - and _",
  );
}

/** Of jtunnel, 8 bytes in hex. */
export function parseId(
  flag: string,
  text: string,
  parse: (text: string) => string | undefined,
): string {
  const id = parse(text);
  if (id) return id;
  throw new UsageError(
    `--${flag} ${JSON.stringify(text)} is no identifier`,
    "Give 16 hex digits, not all zero",
  );
}

/** What hub and spoke are told alike. */
export function endOptions(
  { flags, secrets }: Pick<Settings<typeof COMMON_FLAGS>, "flags" | "secrets">,
  program: string[],
) {
  const key = readSecret(flags["key-file"], "GRETUN_PRIVATE_KEY", secrets["private-key"]);
  const seed = key === undefined ? undefined : parseKey("the private key", key);
  const secret = readSecret(flags["secret-file"], "GRETUN_SECRET", secrets.secret);
  const address = flags.address ? parseIpFlag("address", flags.address) : undefined;
  const options = {
    protocol: flags.protocol,
    dataPlane: flags["data-plane"],
    ...(flags.bind ? { bind: parseBind(flags.bind, flags.protocol) } : {}),
    ...(flags.mtu ? { mtu: flags.mtu } : {}),
    encapCsum: flags["encap-csum"],
    allowFragments: flags["allow-fragments"],
    stateDir: flags["state-dir"],
    encrypt: flags.encrypt === "on",
    program: programOf(flags.program, program),
    programMustSucceed: flags["program-must-succeed"],
    programGraceMs: flags["program-grace"],
    ...(flags["on-up"] ? { onUp: flags["on-up"] } : {}),
    ...(flags["on-down"] ? { onDown: flags["on-down"] } : {}),
  };
  return { options, seed, secret, address };
}
