/**
 * What `install` and `uninstall` do, step by step, from what is there already. Pure; `apply.ts` does
 * it. A step that finds its work done says so and does nothing, so that both can be repeated.
 */
import { SERVICE_USER, type ServiceKind, unitName, unitText } from "./units.ts";

const PROGRAM_DIRECTORY = "/usr/local/bin";
const UNIT_DIRECTORY = "/etc/systemd/system";
const CONFIG_DIRECTORY = "/etc/gretun";
const RUN_DIRECTORY = "/run/gretun";

export type Step =
  | { kind: "copy"; from: string; to: string }
  | { kind: "write"; path: string; text: string; mode: number; group?: string }
  | { kind: "remove"; path: string }
  | { kind: "run"; command: readonly string[]; mayFail?: boolean };

/** What a step would find; `same` for a file that is as the step would make it. */
export interface Present {
  /** The file's text, or a program's hash; undefined where there is none. */
  isSame(step: Step & { kind: "copy" | "write" }): boolean;
  exists(path: string): boolean;
  /** The unit runs a program that was at this path before. */
  runsOlder(unit: string, path: string): boolean;
  hasUser(name: string): boolean;
}

export interface InstallOptions {
  kind: "up" | "coord";
  /** Of several daemons on one host: the unit is `gretun@NAME`. */
  instance?: string;
  /** The program that runs now. */
  program: string;
  /** Lines of the configuration file; a file that is there stays as it is. */
  config: readonly string[];
  start: boolean;
  /** Units of other instances: those that run go on with the program that is installed. */
  others: readonly string[];
}

/** The steps that are left to do; none: all is as wanted. */
export function installSteps(options: InstallOptions, present: Present): Step[] {
  const { kind, instance, program, config, start, others } = options;
  const name = kind === "up" ? "gretun" : "gretun-coord";
  const to = `${PROGRAM_DIRECTORY}/${name}`;
  const file = configPath(kind, instance);
  const files: Step[] = [
    { kind: "copy", from: program, to },
    ...unitsOf(kind).map((unit): Step => ({
      ...{ kind: "write", path: `${UNIT_DIRECTORY}/${unitName(unit)}` },
      ...{ text: unitText(unit), mode: 0o644 },
    })),
  ];
  const changed = files.filter((step) =>
    step.kind === "copy"
      ? step.from !== step.to && !present.isSame(step)
      : step.kind === "write" && !present.isSame(step)
  );
  const unit = runningUnit(kind, instance);
  const isNews = (unit: string) => changed.length > 0 || present.runsOlder(unit, to);
  const text = config.map((line) => line + "\n").join("");
  return [
    ...(present.hasUser(SERVICE_USER) ? [] : [addUser()]),
    ...(text !== "" && !present.exists(file)
      // The service reads it, nobody else: it may hold a token.
      ? [{ kind: "write", path: file, text, mode: 0o640, group: SERVICE_USER } as const]
      : []),
    ...changed,
    ...(changed.length > 0 ? [run("systemctl", "daemon-reload")] : []),
    ...(start ? [run("systemctl", "enable", "--quiet", unit)] : []),
    ...(start ? [run("systemctl", isNews(unit) ? "restart" : "start", unit)] : []),
    ...(start ? others.filter(isNews).map((other) => run("systemctl", "try-restart", other)) : []),
  ];
}

export interface UninstallOptions {
  kind: "up" | "coord";
  /** Units of the kind that are there, running or not. */
  units: readonly string[];
  /** Keys, database and configuration stay. */
  keepState: boolean;
  /** The other program's service is still there. */
  isShared: boolean;
}

export function uninstallSteps(options: UninstallOptions, present: Present): Step[] {
  const { kind, units, keepState, isShared } = options;
  const name = kind === "up" ? "gretun" : "gretun-coord";
  const remove = (path: string): Step[] => present.exists(path) ? [{ kind: "remove", path }] : [];
  const state = kind === "up"
    ? ["/var/lib/gretun", `${RUN_DIRECTORY}/service`]
    : ["/var/lib/gretun-coord", configPath(kind)];
  if (!isShared) state.push(CONFIG_DIRECTORY);
  const unitFiles = unitsOf(kind).flatMap((unit) => remove(`${UNIT_DIRECTORY}/${unitName(unit)}`));
  return [
    // By its own word it removes the links that the service would keep.
    ...(kind === "up" && present.exists(`${PROGRAM_DIRECTORY}/gretun`)
      ? units.flatMap(instanceArguments).map((words): Step => ({
        ...run(`${PROGRAM_DIRECTORY}/gretun`, "down", ...words),
        mayFail: true,
      }))
      : []),
    ...units.map((unit): Step => ({
      ...{ kind: "run", mayFail: true },
      command: ["systemctl", "disable", "--now", "--quiet", unit],
    })),
    ...unitFiles,
    // Without a systemd that runs there is nothing that has to know.
    ...(unitFiles.length > 0
      ? [{ ...run("systemctl", "daemon-reload"), mayFail: true } satisfies Step]
      : []),
    ...remove(`${PROGRAM_DIRECTORY}/${name}`),
    ...(keepState ? [] : state.flatMap(remove)),
    // Root's own programs may still have locks and sockets beside.
    ...(kind === "up" && present.exists(RUN_DIRECTORY)
      ? [run("rmdir", "--ignore-fail-on-non-empty", RUN_DIRECTORY)]
      : []),
    ...(isShared || keepState || !present.hasUser(SERVICE_USER)
      ? []
      : [run("userdel", SERVICE_USER)]),
  ];
}

/** Where the service reads its settings: `up.conf`, `up-INSTANCE.conf`, `coord.conf`. */
export function configPath(kind: "up" | "coord", instance?: string): string {
  return `${CONFIG_DIRECTORY}/${kind}${instance === undefined ? "" : `-${instance}`}.conf`;
}

/** The unit that is started: `gretun`, `gretun@INSTANCE`, `gretun-coord`. */
export function runningUnit(kind: "up" | "coord", instance?: string): string {
  if (kind === "coord") return "gretun-coord.service";
  return instance === undefined ? "gretun.service" : `gretun@${instance}.service`;
}

/** Of the daemon that a unit runs, if it is one. */
function instanceArguments(unit: string): string[][] {
  const instance = /^gretun@(.*)\.service$/.exec(unit)?.[1];
  if (instance !== undefined) return [["--instance", instance]];
  return unit === runningUnit("up") ? [[]] : [];
}

function unitsOf(kind: "up" | "coord"): { kind: ServiceKind; isTemplate: boolean }[] {
  if (kind === "coord") return [{ kind, isTemplate: false }];
  return [
    { kind: "up", isTemplate: false },
    ...(["up", "hub", "spoke"] as const).map((each) => ({ kind: each, isTemplate: true })),
  ];
}

function addUser(): Step {
  return run(
    ...["useradd", "--system", "--user-group", "--no-create-home"],
    ...["--home-dir", "/var/lib/gretun", "--shell", "/usr/sbin/nologin", SERVICE_USER],
  );
}

function run(...command: string[]): Step & { kind: "run" } {
  return { kind: "run", command };
}

/** As a person would do it by hand. */
export function stepText(step: Step): string {
  switch (step.kind) {
    case "copy":
      return `install -m 0755 ${step.from} ${step.to}`;
    case "write":
      return `write ${step.path}`;
    case "remove":
      return `rm -r ${step.path}`;
    case "run":
      return step.command.join(" ");
    default:
      return step satisfies never;
  }
}
