/**
 * Where running programs are asked: sockets of root's own in /run/gretun, and in it a directory that
 * systemd makes for the services' user. Only who owns a directory puts anything there.
 */
const ROOTS_DIR = "/run/gretun";
const SERVICES_DIR = "/run/gretun/service";
const ROOT = 0;

/** Of what is started now; undefined: a user's own programs have none. */
export function runtimeDir(): string | undefined {
  const ofService = Deno.env.get("RUNTIME_DIRECTORY")?.split(":")[0];
  return ofService || (Deno.uid() === ROOT ? ROOTS_DIR : undefined);
}

/** Of what may run already. */
export const RUNTIME_DIRS = [ROOTS_DIR, SERVICES_DIR] as const;
