/**
 * Command-line flags: long GNU style (`--x v` or `--x=v`), declared once for parsing and help.
 * What does not fit is a `UsageError` that names the flag and the value.
 */
import { parseArgs } from "@std/cli/parse-args";
import { UsageError } from "../errors.ts";
import { nearest } from "./nearest.ts";

interface FlagBase {
  /** One line for the help text. */
  help: string;
  /** Stands for the value in the help text: `URL`, `PORT`. */
  placeholder?: string;
  short?: string;
  /** What it was called before, and still may be. */
  formerly?: string;
}

export type FlagSpec =
  & FlagBase
  & (
    /** On as --x, off as --x=false. */
    | { type: "boolean"; default?: true }
    /** `isWord`: usually given as a word, without the flag's name. */
    | { type: "string"; default?: string; required?: boolean; isWord?: true }
    /** Repeated or comma separated. */
    | { type: "list" }
    /** Decimal, 0x, 0o or 0b. */
    | { type: "integer"; min: number; max: number; default?: number }
    /** "500ms", "2s", "1m30s"; the value is in ms, as are its limits. */
    | { type: "duration"; min?: number; max?: number; default?: number }
    | { type: "choice"; choices: readonly string[]; default: string }
  );

export type FlagSpecs = Record<string, FlagSpec>;

/** Of a flag with a value: what stands for it in the help text, its line there, and what else it has. */
function ofType<T extends FlagSpec["type"]>(type: T) {
  return <const M extends object>(placeholder: string, help: string, more?: M) =>
    ({ type, placeholder, help, ...more }) as { type: T; placeholder: string; help: string } & M;
}

export const flag = {
  on: <const M extends object>(help: string, more?: M) =>
    ({ type: "boolean", help, ...more }) as { type: "boolean"; help: string } & M,
  text: ofType("string"),
  list: ofType("list"),
  integer: ofType("integer"),
  duration: ofType("duration"),
  choice: <const C extends string>(
    choices: readonly C[],
    fallback: NoInfer<C>,
    help: string,
    more: { placeholder?: string } = {},
  ) => ({ type: "choice" as const, choices, default: fallback, help, ...more }),
};

type ValueOf<S extends FlagSpec> = S extends { type: "boolean" } ? boolean
  : S extends { type: "list" } ? string[]
  : S extends { type: "integer" | "duration" }
    ? S extends { default: number } ? number : number | undefined
  : S extends { type: "choice"; choices: readonly (infer C)[] } ? C
  : S extends { default: string } | { required: true } ? string
  : string | undefined;

export type FlagValues<S extends FlagSpecs> = { [K in keyof S]: ValueOf<S[K]> };

/** Throws `UsageError` for unknown flags, bad values, missing required flags and extra words. */
export function parseFlags<const S extends FlagSpecs>(given: string[], specs: S): FlagValues<S> {
  const args = given.map((word) => withPresentName(word, specs));
  refuseTwice(args, specs);
  const names = Object.keys(specs);
  const booleans = names.filter((name) => specs[name]!.type === "boolean");
  const alias = Object.fromEntries(
    names.flatMap((name) => specs[name]!.short ? [[specs[name]!.short, name]] : []),
  );
  const valued = names.filter((name) => specs[name]!.type !== "boolean");
  checkBooleans(args, booleans);
  const parsed = parseArgs(joinValues(args, valued), {
    boolean: booleans,
    default: Object.fromEntries(booleans.map((name) => [name, isOnByDefault(specs[name]!)])),
    string: valued,
    collect: valued,
    alias,
    unknown: (word: string) => refuseUnknown(word, names),
  }) as Record<string, unknown>;
  return flagValues(parsed, specs);
}

/** The key of a setting, or a word, by the name that the flag has now. */
export function presentName(name: string, specs: FlagSpecs): string {
  return Object.keys(specs).find((each) => specs[each]!.formerly === name) ?? name;
}

function withPresentName(word: string, specs: FlagSpecs): string {
  const [, name, value = ""] = /^--([^=]+)(=.*)?$/s.exec(word) ?? [];
  return name === undefined ? word : `--${presentName(name, specs)}${value}`;
}

/** Which of two values was meant, nobody knows. */
function refuseTwice(args: readonly string[], specs: FlagSpecs): void {
  const names = flagNames(args, specs)
    .filter((name) => !["list", "boolean"].includes(specs[name]!.type));
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`--${twice} is given twice`, "Give it once");
}

/** "status site" and "status --json site" mean "status --name site"; of a list, all words do. */
export function withPositional(
  args: readonly string[],
  name: string,
  specs: FlagSpecs,
): string[] {
  const takesNext = (word: string) =>
    flagNames([word], specs).some((each) => !word.includes("=") && specs[each]!.type !== "boolean");
  const words = [...args.keys()].filter((i) =>
    !args[i]!.startsWith("-") && (i === 0 || !takesNext(args[i - 1]!))
  );
  const isList = specs[name]!.type === "list";
  const isGiven = flagNames(args, specs).includes(name);
  const meant = isList ? words : isGiven ? [] : words.slice(0, 1);
  return args.map((word, i) => meant.includes(i) ? `--${name}=${word}` : word);
}

/** Names of the flags that are given. */
export function flagNames(args: readonly string[], specs: FlagSpecs): string[] {
  return args.flatMap((word) => {
    const long = presentName(/^--([^=]+)/.exec(word)?.[1] ?? "", specs);
    const short = /^-([a-zA-Z])/.exec(word)?.[1];
    return Object.keys(specs).filter((name) =>
      name === long || (short !== undefined && specs[name]!.short === short)
    );
  });
}

/** From what was given by name: a boolean, or all texts of a flag. Throws `UsageError`. */
export function flagValues<const S extends FlagSpecs>(
  given: Readonly<Record<string, unknown>>,
  specs: S,
): FlagValues<S> {
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(specs)) {
    values[name] = flagValue(name, specs[name]!, given[name]);
  }
  return values as FlagValues<S>;
}

/** "-listen" made "--listen" for a program that takes its long flags with one dash too. */
export function doubleDashed(args: readonly string[], names: readonly string[]): string[] {
  return args.map((word) => {
    const name = /^-([a-z][a-z-]+)(=|$)/.exec(word)?.[1];
    return name !== undefined && names.includes(name) ? `-${word}` : word;
  });
}

/**
 * "--port -1" means the port, which then can be refused by name, and no flag "-1"; "--file -" is
 * standard input, and "--state ''" an empty value.
 */
function joinValues(args: readonly string[], valued: readonly string[]): string[] {
  return args.flatMap((word, i) => {
    const takes = (w: string | undefined) => w !== undefined && valued.includes(w.slice(2));
    const isOdd = (w: string | undefined) => w !== undefined && /^(-\d|-?$)/.test(w);
    if (takes(word) && isOdd(args[i + 1])) return [`${word}=${args[i + 1]}`];
    return isOdd(word) && takes(args[i - 1]) ? [] : [word];
  });
}

const isOnByDefault = (spec: FlagSpec) => spec.type === "boolean" && spec.default === true;

function checkBooleans(args: readonly string[], booleans: readonly string[]): void {
  for (const word of args) {
    const [, name, value] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
    if (!booleans.includes(name!) || value === "true" || value === "false") continue;
    throw new UsageError(
      `--${name} ${JSON.stringify(value)} is neither true nor false`,
      `Give it as --${name} or --${name}=false`,
    );
  }
}

function refuseUnknown(word: string, known: readonly string[]): never {
  const hint = "Run the command with --help to see what it takes";
  if (word.startsWith("-")) {
    const name = word.split("=")[0]!;
    const meant = nearest(name.replace(/^-+/, ""), known);
    throw new UsageError(`unknown flag ${name}`, meant ? `Did you mean --${meant}?` : hint);
  }
  throw new UsageError(`unexpected argument ${JSON.stringify(word)}`, hint);
}

function flagValue(name: string, spec: FlagSpec, given: unknown): unknown {
  if (spec.type === "boolean") return (given ?? isOnByDefault(spec)) === true;
  const texts = Array.isArray(given) ? given.map(String) : [];
  if (spec.type === "list") return texts.flatMap((text) => text.split(",")).filter((t) => t !== "");
  const text = texts.at(-1);
  if (text === undefined) return missing(name, spec);
  if (text === "") {
    throw new UsageError(
      `--${name} has no value`,
      `Give it as --${name} ${spec.placeholder ?? "VALUE"}`,
    );
  }
  switch (spec.type) {
    case "string":
      return text;
    case "integer":
      return parseInteger(name, text, spec);
    case "duration":
      return parseDuration(name, text, spec);
    case "choice":
      if (spec.choices.includes(text)) return text;
      throw new UsageError(
        `--${name} ${JSON.stringify(text)} is unknown`,
        `Choose one of: ${spec.choices.join(", ")}`,
      );
    default:
      return spec satisfies never;
  }
}

function missing(name: string, spec: Exclude<FlagSpec, { type: "boolean" | "list" }>): unknown {
  if (spec.type === "string" && spec.required && spec.isWord) {
    throw new UsageError(
      `${spec.placeholder} is missing`,
      `Add it after the command, or as --${name} ${spec.placeholder}`,
    );
  }
  if (spec.type === "string" && spec.required) {
    throw new UsageError(`--${name} is missing`, `Add --${name} ${spec.placeholder ?? "VALUE"}`);
  }
  return spec.default;
}

function parseInteger(name: string, text: string, { min, max }: { min: number; max: number }) {
  const value = /^(0x[0-9a-f]+|0o[0-7]+|0b[01]+|\d+)$/i.test(text) ? Number(text) : NaN;
  if (value >= min && value <= max) return value;
  const hint = `Give a whole number from ${min} to ${max}`;
  const why = /^-?\d+$/.test(text)
    ? `${text} is out of range (${min}-${max})`
    : `${JSON.stringify(text)} is not a whole number`;
  throw new UsageError(`--${name} ${why}`, hint);
}

const UNIT_MS: Record<string, number> = {
  ...{ ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 },
};

function parseDuration(
  name: string,
  text: string,
  { min = 0, max = Infinity }: { min?: number; max?: number },
): number {
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) {
    throw new UsageError(
      `--${name} ${JSON.stringify(text)} is not a duration`,
      "Give number and unit, as in 500ms, 2s or 1m30s",
    );
  }
  let ms = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    ms += Number(number) * UNIT_MS[unit!]!;
  }
  if (ms >= min && ms <= max) return ms;
  throw new UsageError(
    `--${name} ${JSON.stringify(text)} is ${ms < min ? "too short" : "too long"}`,
    `Give ${formatDuration(min)} to ${formatDuration(max)}`,
  );
}

/** In the largest unit that makes it whole. */
function formatDuration(ms: number): string {
  if (ms === Infinity) return "any longer time";
  const unit = Object.keys(UNIT_MS).findLast((u) => ms % UNIT_MS[u]! === 0 && ms > 0) ?? "ms";
  return `${ms / UNIT_MS[unit]!}${unit}`;
}

/** One aligned line for each flag. */
export function flagsHelp(specs: FlagSpecs): string {
  const rows = Object.entries(specs).map(([name, spec]) => {
    const short = spec.short ? `-${spec.short}, ` : "";
    return [`  ${short}--${name}${valueText(spec)}`, spec.help + defaultText(spec)] as const;
  });
  const width = Math.max(...rows.map(([flag]) => flag.length)) + 2;
  return rows.map(([flag, help]) => flag.padEnd(width) + help).join("\n");
}

function valueText(spec: FlagSpec): string {
  if (spec.type === "boolean") return "";
  const choices = spec.type === "choice" ? spec.choices.join("|") : "VALUE";
  return ` ${spec.placeholder ?? choices}`;
}

function defaultText(spec: FlagSpec): string {
  if (!("default" in spec) || spec.default === undefined) return "";
  return ` (default ${spec.type === "duration" ? formatMs(spec.default) : spec.default})`;
}

function formatMs(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}
