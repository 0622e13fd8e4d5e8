/** Which HTTP proxy the environment names for a URL, in the words that curl and others know. */
import { UsageError } from "../errors.ts";

export type Environment = (name: string) => string | undefined;

export interface Proxy {
  isSecure: boolean;
  hostname: string;
  port: number;
  /** Of Proxy-Authorization. */
  authorization?: string;
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

function parseProxy(name: string, text: string): Proxy {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  if (!url || !/^https?:$/.test(url.protocol) || url.hostname === "") {
    throw new UsageError(
      `the proxy in ${name} is no HTTP proxy: ${JSON.stringify(text)}`,
      "Write it as http://HOST:PORT, or name this host in NO_PROXY",
    );
  }
  const isSecure = url.protocol === "https:";
  const login = [url.username, url.password].map(decodeURIComponent).join(":");
  return {
    isSecure,
    hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: Number(url.port || (isSecure ? 443 : 80)),
    ...(url.username ? { authorization: `Basic ${btoa(login)}` } : {}),
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
