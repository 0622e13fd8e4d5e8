/**
 * Configuration files: one `key value` or `key = value` a line, keys as the flags without dashes,
 * `#` begins a comment line, a key alone switches something on.
 */

export interface ConfigLine {
  /** From 1. */
  line: number;
  key: string;
  /** Absent for a key alone. */
  value?: string;
}

export interface ConfigProblem {
  line: number;
  text: string;
}

/** A file that is another kind of thing altogether has one in each line. */
const MAX_TOLD = 5;

/** All on one line: where, and what. */
export function problemsText(file: string, problems: readonly ConfigProblem[]): string {
  const told = problems.toSorted((a, b) => a.line - b.line).slice(0, MAX_TOLD)
    .map(({ line, text }) => `${file}:${line}: ${text}`).join("; ");
  const left = problems.length - MAX_TOLD;
  return left > 0 ? `${told}; and ${left} more` : told;
}

/** Keys and values; what is not of that form is a problem with its line. */
export function parseConfig(text: string): { lines: ConfigLine[]; problems: ConfigProblem[] } {
  const lines: ConfigLine[] = [];
  const problems: ConfigProblem[] = [];
  for (const [i, raw] of text.split("\n").entries()) {
    const words = raw.replace(/\r$/, "").trim().replace(/^-+/, "");
    if (words === "" || words.startsWith("#")) continue;
    const match = /^([A-Za-z][A-Za-z0-9-]*)(?:\s*=\s*|\s+|$)(.*)$/s.exec(words);
    const line = i + 1;
    if (!match) problems.push({ line, text: "is not KEY VALUE" });
    else lines.push({ line, key: match[1]!, ...(match[2] === "" ? {} : { value: match[2]! }) });
  }
  return { lines, problems };
}
