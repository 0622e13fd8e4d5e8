/**
 * The service manager that started this program (sd_notify(3)): told when it is ready and when it
 * stops, and again and again that its event loop turns and how it is. Without a manager nothing happens.
 */
import type { Clock } from "../edges.ts";

/** The first line comes out of date soonest. */
const FIRST_BEAT_MS = 2_000;

export interface ManagerOptions {
  /** NOTIFY_SOCKET. */
  socketPath: string | undefined;
  /** WATCHDOG_USEC: after so much silence the manager ends the program. */
  watchdogUs: string | undefined;
  send: (socketPath: string, state: string) => void;
  clock: Clock;
}

export class ServiceManager implements Disposable {
  readonly #options: ManagerOptions;
  #timer: Disposable | undefined;

  constructor(options: ManagerOptions) {
    this.#options = options;
  }

  /** `status` is a line for who asks the manager. */
  ready(status: () => string): void {
    this.#tell("READY=1");
    const periodMs = Number(this.#options.watchdogUs) / 1000 / 2;
    this.#beat(status, periodMs, FIRST_BEAT_MS);
  }

  #beat(status: () => string, periodMs: number, pauseMs: number): void {
    this.#tell(`WATCHDOG=1\nSTATUS=${status()}`);
    if (!(periodMs > 0)) return;
    const waitMs = Math.min(pauseMs, periodMs);
    this.#timer = this.#options.clock.timer(waitMs, () => this.#beat(status, periodMs, 2 * waitMs));
  }

  /** It stops now. */
  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#tell("STOPPING=1");
  }

  #tell(state: string): void {
    const { socketPath, send } = this.#options;
    if (socketPath) send(socketPath, state);
  }
}
