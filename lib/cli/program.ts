/**
 * What both programs do around their commands: where words go, which signals stop them, and a last
 * resort for what nobody caught.
 */
import { type Log, systemClock } from "../edges.ts";
import { errorText, InterruptedError } from "../errors.ts";
import { type Rate, TokenBucket } from "../limits.ts";
import { textLog } from "../log.ts";
import {
  type Command,
  type CommandIo,
  errorJson,
  EXIT_FAILURE,
  EXIT_OK,
  exitCode,
  wantsJson,
} from "./command.ts";
import { fatalLine, lineFormat, type LogFormat, stderrKind } from "./log.ts";
import { messageWriter, OutputClosedError, resultWriter } from "./output.ts";

/**
 * Signals that would end the process where it stands, with its links left to nobody. SIGXFSZ is not
 * among them: a log file that may not grow is no reason to stop.
 */
const STOP_SIGNALS = [
  ...["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM"] as const,
  ...["SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGXCPU", "SIGSTKFLT"] as const,
];
/** For a program that has met a bug to remove what it made. */
const GRACE_MS = 10_000;
/** Of a service: what one datagram or one connection brings to light is no reason to end all others. */
const TOLERATED_BUGS: Rate = { burst: 5, perSecond: 1 / 60 };

export interface ProgramIo extends CommandIo {
  /**
   * From now on the program is a service: signals stop it in order, but for those that it hears for
   * another purpose, and messages that nobody reads do not hold it up.
   */
  serve(own?: readonly Deno.Signal[]): Promise<void>;
}

const STDERR_FD = 2;
const SIGHUP = 1;

/** Runs `body` and exits with its code, or with that of what it throws, told in one line. */
export async function runProgram(body: (io: ProgramIo) => Promise<number>): Promise<never> {
  const stopping = new AbortController();
  let canWrite = (_fd: number, _timeoutMs: number): boolean => true;
  const kind = stderrKind(Deno.env.get("JOURNAL_STREAM"), {
    isTerminal: () => Deno.stderr.isTerminal(),
    stat: () => Deno.statSync(`/dev/fd/${STDERR_FD}`),
  });
  let format: () => LogFormat = () => "text";
  const writeResult = resultWriter(Deno.stdout);
  const stderr = messageWriter(
    {
      writeSync: (bytes) => Deno.stderr.writeSync(bytes),
      canWrite: (timeoutMs) => canWrite(STDERR_FD, timeoutMs),
    },
    systemClock,
    (entry) => lineFormat(format(), kind)(entry),
  );
  const log = textLog(stderr, "error", systemClock, (line) => lineFormat(format(), kind)(line));
  let hasResult = false;
  const stdout = (text: string) => {
    hasResult = true;
    writeResult(text);
  };
  const tell = (error: unknown): number => {
    if (error instanceof OutputClosedError) return EXIT_FAILURE;
    stderr(fatalLine(error, format(), kind) + "\n");
    if (wantsJson(Deno.args) && !hasResult) tellAsResult(error, stdout);
    return exitCode(error);
  };
  let failure: number | undefined;
  let tolerated: TokenBucket | undefined;
  onUncaught((error) => {
    if (failure !== undefined) return;
    if (tolerated?.take(systemClock.nowMs())) {
      return tellBug(error, log);
    }
    failure = tell(error);
    stopping.abort(error);
    setTimeout(() => Deno.exit(failure), GRACE_MS);
  });
  const io: ProgramIo = {
    stdout,
    stderr,
    signal: stopping.signal,
    stderrKind: kind,
    logsAs: (wanted) => format = wanted,
    async serve(own = []) {
      const linux = await import("../linux/mod.ts");
      canWrite = linux.canWrite;
      tolerated = new TokenBucket(TOLERATED_BUGS);
      listen(
        { own, ignores: linux.ignoresSignal, outlivesHangup: () => io.outlivesHangup === true },
        () => stopping.abort(new InterruptedError("interrupted", "Run it again")),
      );
    },
  };
  const code = await body(io).catch((error) => failure ?? tell(error));
  Deno.exit(failure ?? code);
}

/** Runs it with the words behind its name, or tells its help. `isBrief`: it is too short to be stopped. */
export async function runCommand(
  command: Command,
  words: string[],
  io: ProgramIo,
  { isBrief = false } = {},
): Promise<number> {
  const end = words.indexOf("--"); // what follows is another program's
  const own = end < 0 ? words : words.slice(0, end);
  if (own.includes("--help") || own.includes("-h")) {
    io.stdout(command.help());
    return EXIT_OK;
  }
  if (!isBrief) await io.serve(command.ownSignals);
  return await command.run(words, io);
}

/** Standard error has it already, if that is what cannot be written. */
function tellAsResult(error: unknown, stdout: (text: string) => void): void {
  try {
    stdout(errorJson(error));
  } catch {
    // nobody reads, or there is no room
  }
}

/** Of a bug that ends nothing. */
function tellBug(error: unknown, log: Log): void {
  const where = error instanceof Error ? error.stack?.split("\n").at(1)?.trim() : undefined;
  log.error("internal error, going on", {
    error: errorText(error),
    ...(where ? { where } : {}),
    hint: "This is a bug: please report it with this line",
  });
}

function onUncaught(handle: (error: unknown) => void): void {
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    handle(event.reason);
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    handle(event.error);
  });
}

function listen(
  { own, ignores, outlivesHangup }: {
    own: readonly Deno.Signal[];
    ignores: (number: number) => boolean;
    outlivesHangup: () => boolean;
  },
  stop: () => void,
): void {
  const hangUp = () => {
    if (!outlivesHangup()) stop();
  };
  for (const name of STOP_SIGNALS) {
    // As nohup has it: the end of the terminal is not the end of the program.
    if (name === "SIGHUP" && ignores(SIGHUP)) continue;
    const end = name === "SIGHUP" ? hangUp : stop;
    Deno.addSignalListener(name, own.includes(name) ? () => {} : end);
  }
  Deno.addSignalListener("SIGXFSZ", () => {});
}
