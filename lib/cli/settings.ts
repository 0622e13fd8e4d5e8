/**
 * Settings of a long-running command: flags, then environment variables (`--node-name` is
 * GRETUN_NODE_NAME), then a configuration file of `key value` lines. What is given in one place hides
 * the same key in the places after it, lists too.
 */
import { type ConfigLine, type ConfigProblem, parseConfig, problemsText } from "../config.ts";
import { errorText, UsageError } from "../errors.ts";
import { refuseEverybodys } from "../state_dir.ts";
import {
  flagNames,
  type FlagSpec,
  type FlagSpecs,
  type FlagValues,
  parseFlags,
  presentName,
} from "./flags.ts";

const PREFIX = "GRETUN_";

export interface SettingsFile {
  path: string;
  text: string;
}

export interface SettingsSources {
  environment?: Readonly<Record<string, string>>;
  file?: SettingsFile;
}

/** Throws `UsageError`: problems of a file are told with its path, line and reason. */
export function readSettings<const S extends FlagSpecs>(
  args: string[],
  specs: S,
  { environment = {}, file }: SettingsSources,
): FlagValues<S> {
  const given = new Set(flagNames(args, specs));
  const fromEnvironment = environmentWords(environment, specs).filter(({ key }) => !given.has(key));
  for (const { key } of fromEnvironment) given.add(key);
  const fromFile = file ? fileWords(file, specs).filter(({ key }) => !given.has(key)) : [];
  const words = [...fromFile, ...fromEnvironment].map(({ word }) => word);
  return parseFlags([...words, ...args], specs);
}

/** The file that `--config` names; `fallback` where it is not given and that file exists. */
export function readSettingsFile(
  args: readonly string[],
  fallback: string,
): SettingsFile | undefined {
  const named = wordAfter(args, "config");
  const path = named ?? fallback;
  let text;
  try {
    text = Deno.readTextFileSync(path);
  } catch (cause) {
    if (named === undefined && cause instanceof Deno.errors.NotFound) return undefined;
    throw new UsageError(`cannot read ${path}: ${errorText(cause)}`, "Check --config", { cause });
  }
  refuseEverybodys(path);
  return { path, text };
}

/** The value of a flag that says where to read the others. */
export function wordAfter(args: readonly string[], flag: string): string | undefined {
  const name = `--${flag}`;
  const i = args.findLastIndex((word) => word === name || word.startsWith(`${name}=`));
  if (i < 0) return undefined;
  return args[i] === name ? args[i + 1] : args[i]!.slice(name.length + 1);
}

/** The variables that this process has for these settings, and no others. */
export function environmentOf(specs: FlagSpecs): Record<string, string> {
  const names = Object.entries(specs).flatMap(([key, { formerly = key }]) => [key, formerly])
    .map(variableOf);
  return Object.fromEntries(names.map((name) => [name, Deno.env.get(name) ?? ""]));
}

const variableOf = (key: string) => PREFIX + key.toUpperCase().replaceAll("-", "_");

interface Word {
  key: string;
  word: string;
}

function environmentWords(environment: Readonly<Record<string, string>>, specs: FlagSpecs): Word[] {
  return Object.entries(specs).flatMap(([key, spec]) => {
    const variable = variableOf(key);
    const value = environment[variable] || environment[variableOf(spec.formerly ?? key)];
    if (value === undefined || value === "") return [];
    const word = wordOf(key, spec, value);
    check(word, specs, variable);
    return [{ key, word }];
  });
}

function fileWords({ path, text }: SettingsFile, specs: FlagSpecs): Word[] {
  const { lines, problems } = parseConfig(text);
  const words: Word[] = [];
  for (const each of lines) {
    const key = presentName(each.key, specs);
    const isKnown = Object.hasOwn(specs, key) && key !== "config";
    const word = isKnown
      ? wordOfLine({ ...each, key }, specs)
      : { line: each.line, text: `unknown key ${key}` };
    if (typeof word === "string") words.push({ key, word });
    else problems.push(word);
  }
  if (problems.length === 0) return words;
  throw new UsageError(
    problemsText(path, problems),
    "Correct the file: its keys are the command's flags without dashes",
  );
}

/** The flag that a line of a file stands for, or what is wrong with it. */
export function wordOfLine(
  { line, key, value }: ConfigLine,
  specs: FlagSpecs,
): string | ConfigProblem {
  const word = wordOf(key, specs[key], value);
  try {
    check(word, specs, key);
    return word;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return { line, text: `${error.message}: ${lowered(error.hint)}` };
  }
}

/** "Give one" made a part of a sentence. */
function lowered(hint: string): string {
  return hint.charAt(0).toLowerCase() + hint.slice(1);
}

function wordOf(key: string, spec: FlagSpec | undefined, value: string | undefined): string {
  return value === undefined && spec?.type === "boolean" ? `--${key}` : `--${key}=${value ?? ""}`;
}

/** Names where the value comes from instead of the flag. */
function check(word: string, specs: FlagSpecs, source: string): void {
  const optional = Object.fromEntries(
    Object.entries(specs).map(([key, spec]) => [key, withoutRequired(spec)]),
  );
  try {
    parseFlags([word], optional);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(error.message.replace(/^--[a-z-]+/, source), error.hint);
  }
}

function withoutRequired(spec: FlagSpec): FlagSpec {
  return spec.type === "string" && spec.required ? { ...spec, required: false } : spec;
}
