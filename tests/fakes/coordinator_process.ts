/** The coordinator program as compile.sh makes it, as a child process. */
import { fileURLToPath } from "node:url";
import { readKernelFile } from "../../lib/linux/mod.ts";

const CLOCK_TICKS_PER_SECOND = 100;

const PROGRAM = fileURLToPath(new URL("../../gretun-coord", import.meta.url));

export interface ProcessOptions {
  env?: Record<string, string>;
  /** How many files it may have open. */
  maxFiles?: number;
}

/** In memory it keeps its key where its state would be: in that directory. */
function command(
  args: string[],
  directory: string,
  { env, maxFiles }: ProcessOptions = {},
): Deno.Command {
  const isInMemory = args.some((arg) => arg.endsWith(":memory:"));
  // The soft limit and the hard one, as the program raises the soft one.
  const limit = maxFiles === undefined ? "" : `ulimit -n ${maxFiles}; `;
  return new Deno.Command("sh", {
    args: ["-c", `${limit}exec "$0" "$@"`, PROGRAM, ...args],
    env: { NO_COLOR: "1", ...(isInMemory ? { STATE_DIRECTORY: directory } : {}), ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** What the process has used of processors. */
export function cpuMs(pid: number): number {
  const [, times] = readKernelFile(`/proc/${pid}/stat`).split(") ");
  const [utime, stime] = times!.split(" ").slice(11, 13).map(Number);
  return 1000 * (utime! + stime!) / CLOCK_TICKS_PER_SECOND;
}

/** Runs it to its end. */
export async function runCoordinator(args: string[]) {
  const directory = Deno.makeTempDirSync();
  const { code, stdout, stderr } = await command(args, directory).output();
  Deno.removeSync(directory, { recursive: true });
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

export class CoordinatorProcess implements AsyncDisposable {
  readonly url: string;
  readonly #child: Deno.ChildProcess;
  readonly #drained: Promise<unknown>;
  readonly #directory: string;
  #said = "";

  private constructor(port: number, child: Deno.ChildProcess, directory: string) {
    this.#directory = directory;
    this.url = `http://127.0.0.1:${port}`;
    this.#child = child;
    this.#drained = child.stderr.pipeThrough(new TextDecoderStream()).pipeTo(
      new WritableStream({ write: (text) => void (this.#said += text) }),
    );
  }

  /** Its log so far. */
  get said(): string {
    return this.#said;
  }

  /** Resolves when it listens, on a free port of loopback; throws what it said instead. */
  static async start(args: string[], options: ProcessOptions = {}) {
    const port = freePort();
    const listen = [
      ...(args.includes("-listen") ? [] : ["--listen", `127.0.0.1:${port}`]),
      "--stun-listen",
      "off",
      "--relay-listen",
      "off",
    ];
    const directory = Deno.makeTempDirSync();
    const child = command([...listen, ...args], directory, options).spawn();
    const process = new CoordinatorProcess(port, child, directory);
    await process.#says("coordinator listening");
    return process;
  }

  async #says(text: string): Promise<void> {
    let isOver = false;
    this.#drained.finally(() => isOver = true);
    while (!this.#said.includes(text)) {
      if (isOver) throw new Error(`the coordinator ended: ${this.#said}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Ends it and gives its exit code. */
  async end(signal: Deno.Signal): Promise<number> {
    this.#child.kill(signal);
    const { code } = await this.#child.status;
    await Promise.all([this.#drained, this.#child.stdout.cancel()]);
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL").catch(() => {}); // it may have ended already
    await Deno.remove(this.#directory, { recursive: true });
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
