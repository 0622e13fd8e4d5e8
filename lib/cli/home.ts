/** Where files are: a service's, root's and a user's (XDG Base Directory Specification: what is empty or relative is unset). */
import { UsageError } from "../errors.ts";

const FALLBACK = { XDG_CONFIG_HOME: ".config", XDG_STATE_HOME: ".local/state" } as const;

/** Throws `UsageError`, which names `flag`, where the environment does not tell. */
export function userDirectory(variable: keyof typeof FALLBACK, flag: string): string {
  const told = Deno.env.get(variable);
  if (told?.startsWith("/")) return told;
  const home = Deno.env.get("HOME") || (Deno.uid() === 0 ? "/root" : "");
  if (home.startsWith("/")) return `${home}/${FALLBACK[variable]}`;
  throw new UsageError(
    `HOME ${home === "" ? "is not set" : `is no absolute path: ${home}`}`,
    `Set it, or say where files are kept with ${flag}`,
  );
}

/**
 * Where a program keeps what it must not lose: systemd tells its services, root's is in /var/lib. Throws
 * `UsageError`, which names `flag`, where the environment does not tell.
 */
export function stateDirectory(name: string, flag: string): string {
  const ofService = Deno.env.get("STATE_DIRECTORY")?.split(":")[0];
  if (ofService) return ofService;
  if (Deno.uid() === 0) return `/var/lib/${name}`;
  return `${userDirectory("XDG_STATE_HOME", flag)}/${name}`;
}
