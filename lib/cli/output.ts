/** Where a program's words go. */
import type { Clock } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { type LineFormat, textLog } from "../log.ts";

/** What of a standard stream is needed: how much was written. */
export interface OutputStream {
  writeSync(bytes: Uint8Array): number;
}

export interface MessageStream extends OutputStream {
  /** Whether writing now would not wait, after waiting for so long at most. */
  canWrite(timeoutMs: number): boolean;
}

/** Whoever read the output has enough of it, as in "gretun list | head -1": no words for that. */
export class OutputClosedError extends Error {
  override name = "OutputClosedError";
}

/** For results: throws {@link OutputClosedError}, or a `GretunError` when they cannot be written. */
export function resultWriter(stream: OutputStream): (text: string) => void {
  return (text) => {
    try {
      writeAll(stream, text);
    } catch (cause) {
      if (cause instanceof Deno.errors.BrokenPipe) throw new OutputClosedError();
      throw new GretunError(
        `cannot write the output: ${errorText(cause)}`,
        "Free some space there, or send the output elsewhere",
        { cause },
      );
    }
  };
}

/** A reader that is slow for a moment loses nothing; one that has stopped does not stop us. */
const PATIENCE_MS = 100;

/**
 * For messages: a service goes on whoever hears it. What cannot be written is lost: the reader is
 * gone or does not read, the disk is full. The next message that is written has their number before
 * it.
 */
export function messageWriter(
  stream: MessageStream,
  clock: Clock,
  format?: LineFormat,
): (text: string) => void {
  let lost = 0;
  let isMidLine = false;
  const log = textLog(write, "warn", clock, format);
  function write(text: string): void {
    if (!stream.canWrite(lost > 0 ? 0 : PATIENCE_MS)) throw new Error("nobody reads");
    writeAll(stream, isMidLine ? `\n${text}` : text, () => isMidLine = true);
    isMidLine = false;
  }
  return (text) => {
    try {
      if (lost > 0) log.warn("messages lost: they could not be written", { count: lost });
      lost = 0;
      write(text);
    } catch {
      lost++;
    }
  };
}

function writeAll(stream: OutputStream, text: string, onPart = () => {}): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    bytes = bytes.subarray(stream.writeSync(bytes));
    if (bytes.length > 0) onPart();
  }
}
