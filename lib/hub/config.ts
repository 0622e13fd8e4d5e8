/** Configuration files of hub and spoke: besides our keys, ipipou's names are understood. */
import type { ConfigLine, ConfigProblem } from "../config.ts";

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
  "tunl-dev": "iface",
  "nfq-max-len": undefined,
  "no-nft-counter": undefined,
  "nft-table": undefined,
  "auth-max-time-discrepancy": "max-time-discrepancy",
  "auth-lifetime": "lifetime",
  "auth-key-type": undefined,
  "no-log-time": undefined,
  "no-log-pid": undefined,
  "auth-packet-ttl": undefined,
  v: "verbose",
};

export const HUB_ALIASES: Record<string, Alias> = {
  ...COMMON_ALIASES,
  s: undefined,
  server: undefined,
  "tunl-ip": "address",
};

/** Its server has one client, ours has a file for each: these say something about that client. */
const CLIENT_KEYS = [
  ...["auth-remote-pubkey-b64", "auth-token", "auth-token-b64", "token", "token-b64"],
  ...["tunl-peer-ip", "fou-remote", "r", "fou-remote-ip", "fou-remote-port"],
  ...["auth-by-remote-ip", "auth-by-remote-port", "number", "n"],
];

export const SPOKE_ALIASES: Record<string, Alias> = {
  ...COMMON_ALIASES,
  c: undefined,
  client: undefined,
  n: "number",
  "auth-remote-pubkey-b64": "hub-key",
  "auth-by-remote-ip": undefined,
  "auth-by-remote-port": undefined,
  "fou-remote": "hub",
  r: "hub",
  "fou-remote-ip": "hub",
  "tunl-ip": "address",
  "tunl-peer-ip": "hub-address",
};

/** ipipou gives these in seconds, we with a unit. */
const SECONDS_KEYS = ["auth-max-time-discrepancy", "auth-lifetime", "keepalive"];
/** Of `verb N` and `vvv`: its "debug". Less is what we log anyway. */
const VERBOSE_LEVEL = 3;

/** The lines in our words: ipipou's names replaced, its shorthands taken apart. */
export function translate(
  lines: readonly ConfigLine[],
  aliases: Record<string, Alias>,
  known: readonly string[],
): { lines: ConfigLine[]; problems: ConfigProblem[] } {
  const translated: ConfigLine[] = [];
  const problems: ConfigProblem[] = [];
  const remotePort = lines.findLast(({ key }) => key === "fou-remote-port")?.value;
  for (const line of lines.flatMap(inOurForm)) {
    const { key, value } = line;
    if (known.includes(key)) translated.push(line);
    else if (key === "fou-remote-ip" && aliases[key] && remotePort !== undefined) {
      translated.push({ ...line, key: aliases[key], value: `${value}:${remotePort}` });
    } else if (key === "fou-remote-port" && aliases["fou-remote-ip"]) continue;
    else if (Object.hasOwn(aliases, key)) {
      if (aliases[key] !== undefined) translated.push({ ...line, key: aliases[key] });
    } else {
      const isClients = CLIENT_KEYS.includes(key);
      const text = isClients ? `${key} belongs in the client's own file` : `unknown key ${key}`;
      problems.push({ line: line.line, text });
    }
  }
  return { lines: translated, problems };
}

/** A line of ipipou's whose value has another form here. */
function inOurForm(line: ConfigLine): ConfigLine[] {
  const { key, value } = line;
  if (key === "fou-local" || key === "b") return takeApart(line);
  if (key === "no-encap-csum") return [{ ...line, key: "encap-csum", value: "off" }];
  if (key === "encap-csum" && value === undefined) return [{ ...line, value: "on" }];
  if (SECONDS_KEYS.includes(key) && /^\d+$/.test(value ?? "")) {
    return [{ ...line, value: `${value}s` }];
  }
  if (key === "verb" || /^vv+$/.test(key)) {
    const level = key === "verb" ? Number(value) : key.length;
    return level >= VERBOSE_LEVEL ? [{ line: line.line, key: "verbose" }] : [];
  }
  return [line];
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
