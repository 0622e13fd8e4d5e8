/** Manual pages in man(7), from what --help says. */
import { UsageError } from "../errors.ts";
import { type Command, EXIT_OK } from "./command.ts";
import denoJson from "../../deno.json" with { type: "json" };

export interface ManProgram {
  name: string;
  version: string;
  summary: string;
  /** What --help of each prints; lines of flags begin with two spaces and a dash. */
  helpTexts: ReadonlyMap<string, string>;
  files: Readonly<Record<string, string>>;
  seeAlso: readonly string[];
}

const EXIT_STATUS: Record<string, string> = {
  "0": "success",
  "1": "failure, or something is not well",
  "2": "wrong usage",
  "3": "no daemon runs",
  "130": "interrupted",
};

/** `man`: prints the page. `helpTexts` are those of all commands. */
export function manCommand(
  program: Omit<ManProgram, "version" | "helpTexts">,
  helpTexts: () => Promise<ReadonlyMap<string, string>>,
): Command {
  const { name } = program;
  return {
    summary: "print the manual page",
    help: () => `Usage: ${name} man\n\n  ${name} man | man -l -\n`,
    async run(args, io) {
      if (args.length > 0) {
        throw new UsageError(`unexpected argument ${JSON.stringify(args[0])}`, `Run ${name} man`);
      }
      const { version } = denoJson;
      io.stdout(manPage({ ...program, version, helpTexts: await helpTexts() }));
      return EXIT_OK;
    },
  };
}

/** One page for all commands of a program. */
export function manPage({ name, version, summary, helpTexts, files, seeAlso }: ManProgram): string {
  return [
    `.TH ${name.toUpperCase()} 1 "" "${name} ${version}"`,
    ...[".SH NAME", `${plain(name)} \\- ${plain(summary)}`],
    ...[".SH SYNOPSIS", `.B ${plain(name)}`, ".I COMMAND", "[flags]"],
    ".SH COMMANDS",
    ...[...helpTexts].flatMap(([command, help]) => [
      `.SS ${plain(name)} ${plain(command)}`,
      ...helpLines(help),
    ]),
    ".SH EXIT STATUS",
    ...entries(EXIT_STATUS),
    ".SH FILES",
    ...entries(files),
    ".SH SEE ALSO",
    seeAlso.map((page) => `.BR ${plain(page)} (1)`).join("\n"),
    "",
  ].join("\n");
}

function entries(table: Readonly<Record<string, string>>): string[] {
  return Object.entries(table).flatMap(([term, text]) => [".TP", `.B ${plain(term)}`, plain(text)]);
}

/** Paragraphs are filled, flags are a list, and what is indented otherwise is an example. */
function helpLines(help: string): string[] {
  const lines: string[] = [];
  let isExample = false;
  const setExample = (wanted: boolean) => {
    if (wanted !== isExample) lines.push(wanted ? ".nf" : ".fi");
    isExample = wanted;
  };
  for (const line of help.trimEnd().split("\n")) {
    const [, flag, text] = /^ {2}(-.*?)(?: {2,}(.*))?$/.exec(line) ?? [];
    setExample(flag === undefined && line.startsWith(" "));
    if (flag !== undefined) lines.push(".TP", `.B ${plain(flag)}`, plain(text ?? ""));
    else if (line.trim() === "") lines.push(".PP");
    else lines.push(plain(line));
  }
  setExample(false);
  return lines.filter((line, i) => line !== "" && !(line === ".PP" && isBreak(lines[i + 1])));
}

/** What begins a paragraph by itself, or ends. */
function isBreak(line: string | undefined): boolean {
  return line === undefined || line === ".TP" || line === ".PP" || line === ".nf";
}

/** Nothing in it is a request or an escape. */
function plain(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^(?=[.'])/, "\\&");
}
