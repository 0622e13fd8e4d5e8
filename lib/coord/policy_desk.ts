/** The file of a coordinator's policy: read at the start and whenever the operator says so. */
import type { Log } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { type PolicyFile, readPolicy } from "../policy/mod.ts";
import type { Json } from "./api/json.ts";
import type { CoordServer } from "./server.ts";

export interface PolicyDeskOptions {
  path: string;
  readFile: (path: string) => string;
  nowMs: () => number;
}

export class PolicyDesk {
  readonly #options: PolicyDeskOptions;
  #inForce: PolicyFile;
  #sinceMs: number;
  /** Why the file was refused when it was read last. */
  #refused: string | undefined;

  /** Throws `GretunError`. */
  constructor(options: PolicyDeskOptions) {
    this.#options = options;
    this.#inForce = this.#read();
    this.#sinceMs = options.nowMs();
  }

  get policy() {
    return this.#inForce.policy;
  }

  /** Throws `GretunError` for a file that is refused; the policy in force stays. */
  reload(server: CoordServer, log: Log): Json {
    const { nowMs } = this.#options;
    try {
      this.#inForce = this.#read();
      this.#refused = undefined;
    } catch (error) {
      this.#refused = errorText(error);
      log.error("policy refused, the one before stays in force", { error: this.#refused });
      throw error;
    }
    this.#sinceMs = nowMs();
    server.setPolicy(this.#inForce.policy);
    this.tell(log);
    return this.status();
  }

  tell(log: Log): void {
    log.info("policy in force", { file: this.#options.path, rules: this.policy.rules.length });
  }

  status(): Json {
    const { policy, groups, tests } = this.#inForce;
    return {
      file: this.#options.path,
      since_ms: this.#sinceMs,
      rules: policy.rules.length,
      groups,
      tests: tests.length,
      ...(this.#refused === undefined ? {} : { refused: this.#refused }),
    };
  }

  #read(): PolicyFile {
    return readPolicyFile(this.#options.path, this.#options.readFile);
  }
}

/** Throws `GretunError`. */
export function readPolicyFile(
  path: string,
  readFile: (path: string) => string,
  parse = readPolicy,
): PolicyFile {
  let text;
  try {
    text = readFile(path);
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    throw new GretunError(
      `cannot read the policy ${path}: ${errorText(cause)}`,
      "Give a file that the coordinator may read",
      { cause },
    );
  }
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof GretunError)) throw cause;
    throw new GretunError(`policy ${path}: ${cause.message}`, cause.hint, { cause });
  }
}
