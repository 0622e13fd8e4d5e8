/** Does the steps of an installation on this host, and looks at what is there: files and systemd. */
import { errorText, GretunError } from "../errors.ts";
import { directoryOf } from "../state_dir.ts";
import type { Present, Step } from "./plan.ts";

/** Throws `GretunError` for the first step that fails; the steps before it stay done. */
export function applyStep(step: Step): void {
  try {
    switch (step.kind) {
      case "copy":
        return replaceFile(step.to, 0o755, (path) => Deno.copyFileSync(step.from, path));
      case "write":
        replaceFile(step.path, step.mode, (path) => Deno.writeTextFileSync(path, step.text));
        if (step.group) run(["chgrp", step.group, step.path]);
        return;
      case "remove":
        return Deno.removeSync(step.path, { recursive: true });
      case "run":
        return run(step.command, step.mayFail);
      default:
        return step satisfies never;
    }
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    throw new GretunError(`installation stopped: ${errorText(cause)}`, "Run it as root again", {
      cause,
    });
  }
}

/** A running program's file cannot be written, but another one can take its name. */
function replaceFile(path: string, mode: number, write: (path: string) => void): void {
  makeDirectory(directoryOf(path));
  const temporary = `${path}.new`;
  try {
    write(temporary);
    Deno.chmodSync(temporary, mode);
    Deno.renameSync(temporary, path);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // it was never there
    }
    throw error;
  }
}

/** Whatever root's umask is, the service has to get at what is in it. */
function makeDirectory(path: string): void {
  if (presentFiles.exists(path)) return;
  Deno.mkdirSync(path, { recursive: true });
  Deno.chmodSync(path, 0o755);
}

function run([program, ...args]: readonly string[], mayFail = false): void {
  let output;
  try {
    output = new Deno.Command(program!, { args, stdin: "null", env: { LC_ALL: "C" } }).outputSync();
  } catch (cause) {
    if (mayFail) return;
    throw new GretunError(
      `cannot run ${program}: ${errorText(cause)}`,
      "A host with systemd is needed; start gretun by other means where there is none",
      { cause },
    );
  }
  if (output.success || mayFail) return;
  const said = whyNotStarted(program!, args) ??
    new TextDecoder().decode(output.stderr).trim().split("\n").at(-1)!.replace(/\.$/, "");
  throw new GretunError(
    `${[program, ...args].join(" ")} failed: ${said || `exit code ${output.code}`}`,
    "Look with: journalctl -n 30, mend it, and run the same command again",
  );
}

function outputOf(program: string, ...args: string[]): string {
  const { stdout } = new Deno.Command(program, { args, stdin: "null", stderr: "null" })
    .outputSync();
  return new TextDecoder().decode(stdout).trim();
}

/** The last words of a program of ours that systemd was to start. */
function whyNotStarted(program: string, [verb, unit]: readonly string[]): string | undefined {
  if (program !== "systemctl" || !unit || !["start", "restart"].includes(verb!)) return undefined;
  try {
    outputOf("journalctl", "--sync"); // they may still be on their way
    const lines = outputOf("journalctl", "-o", "cat", "--since", "-30s", "-u", unit).split("\n");
    return lines.findLast((line) => line.startsWith("Error: "))?.slice(7).replace(/\.$/, "");
  } catch {
    return undefined; // systemctl's own words have to do
  }
}

export const presentFiles: Present = {
  isSame(step) {
    try {
      if (step.kind === "write") return Deno.readTextFileSync(step.path) === step.text;
      return sameBytes(Deno.readFileSync(step.from), Deno.readFileSync(step.to));
    } catch {
      return false;
    }
  },
  exists(path) {
    try {
      Deno.lstatSync(path);
      return true;
    } catch {
      return false;
    }
  },
  runsOlder(unit, path) {
    const show = ["show", "--timestamp=unix", "-P", "ExecMainStartTimestamp", unit];
    try {
      const started = /^@(\d+)/.exec(outputOf("systemctl", ...show))?.[1];
      const { ctime } = Deno.statSync(path);
      return started !== undefined && ctime !== null &&
        ctime.getTime() / 1000 > Number(started) + 1;
    } catch {
      return false; // no systemd, or no such program
    }
  },
  hasUser: (name) =>
    Deno.readTextFileSync("/etc/passwd").split("\n").some((line) => line.startsWith(`${name}:`)),
};

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Unit files, and instances that are enabled or running, whose names begin so. */
export function unitsNamed(prefix: string): string[] {
  const names = new Set<string>();
  for (const verb of ["list-units", "list-unit-files"]) {
    const args = [verb, "--all", "--plain", "--no-legend", "--no-pager", `${prefix}*`];
    for (const line of outputOf("systemctl", ...args).split("\n")) {
      const [name, load, active] = line.trim().split(/\s+/);
      // Systemd has not forgotten it: on cgroups of version 1 it does not.
      if (load === "not-found" && active === "inactive") continue;
      if (name?.endsWith(".service") && !name.endsWith("@.service")) names.add(name);
    }
  }
  return [...names];
}

/** Whether systemd runs this host. */
export function hasSystemd(): boolean {
  return presentFiles.exists("/run/systemd/system");
}
