/** Which proxy the environment names for a URL, in the words that curl and others know. */
import { UsageError } from "../errors.ts";

export type Environment = (name: string) => string | undefined;

export interface Proxy {
  /** `https`: HTTP over TLS to the proxy itself. */
  kind: "http" | "https" | "socks5";
  hostname: string;
  port: number;
  login?: { name: string; password: string };
}

/**
 * HTTP_PROXY or HTTPS_PROXY by the scheme of the URL (`ws:` and `wss:` are like `http:` and
 * `https:`), else ALL_PROXY; in lower case before upper case, and none for what NO_PROXY names.
 * Throws {@link UsageError} for a proxy that is none.
 */
export function proxyFor(url: URL, environment: Environment): Proxy | undefined {
  const isSecure = /^(?:https|wss):$/.test(url.protocol);
  const [name, value] = firstSet(environment, isSecure ? "https_proxy" : "http_proxy") ??
    firstSet(environment, "all_proxy") ?? [];
  if (!name || !value || isExcepted(url, firstSet(environment, "no_proxy")?.[1] ?? "")) {
    return undefined;
  }
  return parseProxy(name, value);
}

function firstSet(environment: Environment, name: string): [string, string] | undefined {
  for (const each of [name, name.toUpperCase()]) {
    const value = environment(each)?.trim();
    if (value) return [each, value];
  }
  return undefined;
}

/** Names are resolved by the proxy in any case. */
const KINDS: Readonly<Record<string, Proxy["kind"]>> = {
  "http:": "http",
  "https:": "https",
  "socks:": "socks5",
  "socks5:": "socks5",
  "socks5h:": "socks5",
};
const DEFAULT_PORTS: Record<Proxy["kind"], number> = { http: 80, https: 443, socks5: 1080 };

function parseProxy(name: string, text: string): Proxy {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  const kind = url ? KINDS[url.protocol] : undefined;
  if (!url || !kind || url.hostname === "") {
    throw new UsageError(
      `the proxy in ${name} is of no known kind: ${JSON.stringify(text)}`,
      "Write it as http://HOST:PORT or socks5://HOST:PORT, or name the host in NO_PROXY",
    );
  }
  const [user, password] = [url.username, url.password].map(decodeURIComponent);
  return {
    kind,
    hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: Number(url.port || DEFAULT_PORTS[kind]),
    ...(user ? { login: { name: user, password: password! } } : {}),
  };
}

/** NO_PROXY: "*", or names with all names below them, each with a port if only that is meant. */
function isExcepted({ hostname, port, protocol }: URL, list: string): boolean {
  const host = hostname.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  const actualPort = port || (/^(?:https|wss):$/.test(protocol) ? "443" : "80");
  if (isLoopbackName(host)) return true;
  return list.split(/[\s,]+/).filter((entry) => entry !== "").some((entry) => {
    if (entry === "*") return true;
    const [, name, only] = /^\[?([^\]]*?)\]?(?::(\d+))?$/.exec(
      entry.split(":").length > 2 && !entry.startsWith("[") ? `[${entry}]` : entry,
    )!;
    const suffix = name!.toLowerCase().replace(/^\*?\./, "");
    return (host === suffix || host.endsWith(`.${suffix}`)) &&
      (only === undefined || only === actualPort);
  });
}

/** No proxy leads to this host itself. */
function isLoopbackName(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
