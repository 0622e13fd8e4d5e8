/** What the installing commands of both programs share. */
import { GretunError } from "../errors.ts";
import type { CommandIo } from "./command.ts";
import type { Step } from "../service/mod.ts";
import { applyStep, stepText } from "../service/mod.ts";

export const INSTALL_FLAGS = {
  "no-start": { type: "boolean", help: "neither enable nor start the service" },
  "dry-run": { type: "boolean", help: "print the steps, and do nothing" },
} as const;

export const UNINSTALL_FLAGS = {
  "keep-state": { type: "boolean", help: "leave keys, database and configuration" },
  "dry-run": { type: "boolean", help: "print the steps, and do nothing" },
} as const;

export function requireRoot(what: string): void {
  if (Deno.uid() === 0) return;
  throw new GretunError(`only root can ${what} services`, "Run the same command with sudo");
}

/** Prints each step, then does it. */
export function performSteps(steps: readonly Step[], io: CommandIo, isDryRun: boolean): void {
  if (steps.length === 0) io.stdout("Nothing to do: all is in place.\n");
  for (const step of steps) {
    io.stdout(stepText(step) + "\n");
    if (!isDryRun) applyStep(step);
  }
}
