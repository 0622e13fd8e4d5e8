/** A computer of the lab: programs and sockets can be started in it. */
import { GretunError } from "../errors.ts";
import type { Fd } from "../linux/mod.ts";
import type { ChildProcesses } from "./processes.ts";
import type { Space } from "./space.ts";

export interface SpawnOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** SIGTERM when it is aborted. */
  signal?: AbortSignal;
  /** "null" unless told; what is piped has to be read or cancelled. */
  stdin?: "piped" | "null";
  stdout?: "piped" | "inherit" | "null";
  stderr?: "piped" | "inherit" | "null";
}

export interface RunResult {
  code: number;
  stdout: string;
  stderr: string;
}

export class LabNode {
  readonly name: string;
  protected readonly space: Space;
  readonly #children: ChildProcesses;

  /** `children` takes note of what is started, for the lab to wait for. */
  constructor(name: string, space: Space, children: ChildProcesses) {
    this.name = name;
    this.space = space;
    this.#children = children;
  }

  /** As `ip netns exec` takes it. */
  get netnsName(): string {
    return this.space.netnsName;
  }

  get netns(): Fd {
    return this.space.netns;
  }

  /** Runs synchronous code inside: sockets that it opens belong to this node. */
  within<T>(body: () => T): T {
    return this.space.within(body);
  }

  /** Starts a program, which the lab ends when it is disposed. Throws `GretunError`. */
  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): Deno.ChildProcess {
    const { stdin = "null", stdout = "null", stderr = "null", ...rest } = options;
    const spec = new Deno.Command(command, { ...rest, args: [...args], stdin, stdout, stderr });
    try {
      const child = this.within(() => spec.spawn());
      this.#children.add(child);
      return child;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new GretunError(
        `cannot start ${command} on ${this.name}: there is no such program`,
        `Install ${command}, or check the path`,
        { cause: error },
      );
    }
  }

  /** Waits for a short program and gives what it printed. */
  async run(
    command: string,
    args: readonly string[],
    options: Omit<SpawnOptions, "stdin" | "stdout" | "stderr"> = {},
  ): Promise<RunResult> {
    const child = this.spawn(command, args, { ...options, stdout: "piped", stderr: "piped" });
    const { code, stdout, stderr } = await child.output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  }
}
