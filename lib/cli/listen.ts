/** Addresses to listen on: "HOST:PORT", ":PORT" for all addresses, "[v6]:PORT". */
import { UsageError } from "../errors.ts";

export function parseListen(flag: string, text: string): { hostname: string; port: number } {
  const match = /^(?:\[(.+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match && port >= 1 && port <= 65535) {
    return { hostname: match[1] ?? (match[2] || "0.0.0.0"), port };
  }
  throw new UsageError(
    `--${flag} ${JSON.stringify(text)} is not HOST:PORT`,
    "Give for example 127.0.0.1:8443, or :8443 for all addresses",
  );
}
