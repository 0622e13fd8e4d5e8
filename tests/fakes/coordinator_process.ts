/** The coordinator program as compile.sh makes it, as a child process. */
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("../../gretun-coord", import.meta.url));

export interface ProcessOptions {
  env?: Record<string, string>;
  /** How many files it may have open. */
  maxFiles?: number;
}

function command(args: string[], { env, maxFiles }: ProcessOptions): Deno.Command {
  const limit = maxFiles === undefined ? "" : `ulimit -n ${maxFiles}; `;
  return new Deno.Command("sh", {
    args: ["-c", `${limit}exec "$0" "$@"`, PROGRAM, ...args],
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs it to its end. */
export async function runCoordinator(args: string[]) {
  const { code, stdout, stderr } = await command(args, {}).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

export class CoordinatorProcess implements AsyncDisposable {
  readonly url: string;
  readonly #child: Deno.ChildProcess;
  readonly #drained: Promise<unknown>;

  private constructor(url: string, child: Deno.ChildProcess, drained: Promise<unknown>) {
    this.url = url;
    this.#child = child;
    this.#drained = drained;
  }

  /** Resolves when it listens, on a free port of loopback; throws what it said instead. */
  static async start(args: string[], options: ProcessOptions = {}) {
    const port = freePort();
    const listen = [
      "--listen",
      `127.0.0.1:${port}`,
      "--stun-listen",
      "off",
      "--relay-listen",
      "off",
    ];
    const child = command([...listen, ...args], options).spawn();
    let said = "";
    const listening = Promise.withResolvers<void>();
    const drained = child.stderr.pipeThrough(new TextDecoderStream()).pipeTo(
      new WritableStream({
        write(text) {
          said += text;
          if (said.includes("coordinator listening")) listening.resolve();
        },
        close: () => listening.reject(new Error(`the coordinator ended: ${said}`)),
      }),
    );
    await listening.promise;
    return new CoordinatorProcess(`http://127.0.0.1:${port}`, child, drained);
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
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
