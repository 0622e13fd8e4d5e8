/**
 * First arguments of `deno` for a program of this repository as a child of a test. Where packages
 * come from was decided by tests/run.sh; without it: from npm, as everywhere.
 */
const FLAGS = Deno.env.get("GRETUN_DENO_FLAGS") ??
  "--import-map=npm_imports.json --lock=deno.lock --frozen";

export const DENO_RUN: readonly string[] = [
  ...["run", "-A", "--quiet", "--no-check", "--cached-only", "--unstable-net"],
  ...FLAGS.split(" "),
];
