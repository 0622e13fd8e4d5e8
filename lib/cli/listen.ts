/** Addresses to listen on: "HOST:PORT", ":PORT" for all addresses, "[v6]:PORT". */
import { UsageError } from "../errors.ts";
import { ALL, type ListenAddress } from "../listen.ts";
import { flag } from "./flags.ts";

export const METRICS_FLAG = {
  "metrics-addr": flag.text("HOST:PORT", "serve Prometheus metrics at /metrics (default off)"),
} as const;

/** Undefined: nowhere. Throws `UsageError`. */
export function metricsListen(
  { "metrics-addr": text }: { "metrics-addr"?: string | undefined },
): ListenAddress | undefined {
  return text ? parseListen("metrics-addr", text) : undefined;
}

export function parseListen(flag: string, text: string): ListenAddress {
  const match = /^(?:\[(.+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match && port >= 1 && port <= 65535) {
    return { hostname: match[1] ?? match[2] ?? ALL, port };
  }
  throw new UsageError(
    `--${flag} ${JSON.stringify(text)} is not HOST:PORT`,
    "Give for example 127.0.0.1:8443, or :8443 for all addresses",
  );
}
