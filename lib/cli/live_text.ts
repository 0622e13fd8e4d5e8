/** Text on a terminal that is shown anew in the same place. */

export interface TerminalSize {
  columns: number;
  rows: number;
}

/** Undefined where text cannot be replaced: in a file or a pipe, and on a terminal that says it is dumb. */
export function terminalSize(): TerminalSize | undefined {
  if (!Deno.stdout.isTerminal() || Deno.env.get("TERM") === "dumb") return undefined;
  return Deno.consoleSize();
}

export class LiveText {
  #lines: string[] = [];

  /** What to write so that `text`, of whole lines, stands where the last one stood (ECMA-48). */
  replace(text: string, size: TerminalSize | undefined): string {
    const back = size ? this.#back(size) : "";
    this.#lines = text.split("\n").slice(0, -1);
    return back + text;
  }

  #back(size: TerminalSize): string {
    // A terminal that does not tell its size says 0.
    const [columns, rows] = [size.columns || 80, size.rows || 24];
    const height = this.#lines.reduce((sum, line) => sum + wrapped(line, columns), 0);
    if (height === 0) return "";
    // What has been scrolled out of sight cannot be reached: the whole screen is cleared instead.
    return height < rows ? `\x1b[${height}F\x1b[J` : "\x1b[H\x1b[2J";
  }
}

function wrapped(line: string, columns: number): number {
  return Math.max(1, Math.ceil(line.length / columns));
}
