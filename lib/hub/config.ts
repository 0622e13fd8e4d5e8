/**
 * Configuration files: one `key value` or `key = value` a line, keys as the flags without dashes,
 * `#` begins a comment line, a key alone switches something on. ipipou's names are understood.
 */

export interface ConfigLine {
  /** From 1. */
  line: number;
  key: string;
  /** Absent for a key alone. */
  value?: string;
}

export interface ConfigProblem {
  line: number;
  text: string;
}

/** ipipou's key, and what it says here; undefined: understood, and of no effect here. */
export type Alias = string | undefined;

/** Keys of ipipou's that mean the same on both ends. */
const COMMON_ALIASES: Record<string, Alias> = {
  "fou-local-ip": "bind",
  "fou-local-port": "port",
  "fou-dev": undefined,
  "fou-local-ip-alt": undefined,
  "force-fou-local-ip-alt": undefined,
  "queue-number": undefined,
  q: undefined,
  n: "number",
  "tunl-dev": "iface",
  "nfq-max-len": undefined,
  "no-nft-counter": undefined,
  "nft-table": undefined,
  "auth-max-time-discrepancy": "max-time-discrepancy",
  "auth-lifetime": "lifetime",
  "auth-key-type": undefined,
  "no-log-time": undefined,
  "no-log-pid": undefined,
  v: "verbose",
};

export const HUB_ALIASES: Record<string, Alias> = {
  ...COMMON_ALIASES,
  s: undefined,
  server: undefined,
  "tunl-ip": "address",
};

export const SPOKE_ALIASES: Record<string, Alias> = {
  ...COMMON_ALIASES,
  c: undefined,
  client: undefined,
  "tunl-ip": "address",
  "tunl-peer-ip": "hub-address",
};

/** ipipou gives these in seconds, we with a unit. */
const SECONDS_KEYS = ["auth-max-time-discrepancy", "auth-lifetime"];

/** Keys and values; what is not of that form is a problem with its line. */
export function parseConfig(text: string): { lines: ConfigLine[]; problems: ConfigProblem[] } {
  const lines: ConfigLine[] = [];
  const problems: ConfigProblem[] = [];
  for (const [i, raw] of text.split("\n").entries()) {
    const words = raw.replace(/\r$/, "").trim().replace(/^-+/, "");
    if (words === "" || words.startsWith("#")) continue;
    const match = /^([A-Za-z][A-Za-z0-9-]*)(?:\s*=\s*|\s+|$)(.*)$/s.exec(words);
    const line = i + 1;
    if (!match) problems.push({ line, text: "is not KEY VALUE" });
    else lines.push({ line, key: match[1]!, ...(match[2] === "" ? {} : { value: match[2]! }) });
  }
  return { lines, problems };
}

/** The lines in our words: ipipou's names replaced, its shorthands taken apart. */
export function translate(
  lines: readonly ConfigLine[],
  aliases: Record<string, Alias>,
  known: readonly string[],
): { lines: ConfigLine[]; problems: ConfigProblem[] } {
  const translated: ConfigLine[] = [];
  const problems: ConfigProblem[] = [];
  for (const line of lines) {
    const { key, value } = line;
    if (known.includes(key)) translated.push(line);
    else if (key === "fou-local") translated.push(...takeApart(line));
    else if (key === "auth-keygen" || !Object.hasOwn(aliases, key)) {
      problems.push({ line: line.line, text: `unknown key ${key}` });
    } else if (aliases[key] !== undefined) {
      const isSeconds = SECONDS_KEYS.includes(key) && /^\d+$/.test(value ?? "");
      const seconds = isSeconds ? { value: `${value}s` } : {};
      translated.push({ ...line, key: aliases[key], ...seconds });
    }
  }
  return { lines: translated, problems };
}

/** `[IP][:PORT][@DEV]` */
function takeApart({ line, value = "" }: ConfigLine): ConfigLine[] {
  const match = /^([^:@]*)(?::(\d+))?(?:@.*)?$/.exec(value);
  const [ip, port] = [match?.[1], match?.[2]];
  return [
    ...(ip ? [{ line, key: "bind", value: ip }] : []),
    ...(port ? [{ line, key: "port", value: port }] : []),
  ];
}

/** Where `--config NAME` is: a path as it stands, else in /etc/gretun. */
export function configPath(kind: "hub" | "spoke", name: string): string {
  return /^(\/|\.\.?\/)/.test(name) ? name : `/etc/gretun/${kind}-${name}.conf`;
}
