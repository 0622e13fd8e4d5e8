/**
 * The coordinator's HTTP server: `Deno.serve` has no time limits, tells nothing of its connections, and
 * closes its listener when files run out.
 */
import { type Ip, parseIp } from "../addr.ts";
import { ConnectionStream } from "../byte_stream.ts";
import type { Clock, Log, LogFields } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import { sourceNetwork } from "../limits.ts";
import { type ServerAnswer, type ServerRequest, textAnswer } from "../server_http.ts";
import { Connection, type ConnectionRefusal, Connections } from "./connections.ts";
import { serveConnection } from "./http_connection.ts";

const SWEEP_MS = 2_000;
/** Given up one by one when there are none left, to accept who comes and turn them away. */
const RESERVED_FILES = 4;
/** After a failed accept, so that an error that stays does not take the whole CPU. */
const PAUSE_AFTER_ERROR_MS = 100;
/** An error that stays is told again after that time. */
const TELL_AGAIN_MS = 60_000;
/** What calls under way get to finish at the end, and who was refused to read why. */
const SHUTDOWN_MS = 300;
/** What a connection takes of memory while it waits for bytes. */
const READ_BYTES = 1024;

const REFUSALS: Record<ConnectionRefusal, string> = {
  full: "no room for more connections, new ones are turned away",
  source: "too many connections of one address, its new ones are turned away",
};

/** What a call learns of where it came from, and tells of whose it is. */
export interface Caller {
  /** The address that the call came from. */
  source: string;
  /** The call is signed by that node. */
  claimed(node: NodeKey): void;
}

export type HttpHandler = (
  request: ServerRequest,
  caller: Caller,
) => ServerAnswer | Promise<ServerAnswer>;

export type HttpEvent = "accepted" | "refused-full" | "refused-source" | "accept-failed";

export interface HttpServerOptions {
  /** Opens the ports; they stay open until the signal. */
  listeners: readonly Deno.Listener[];
  /** How many connections there may be. */
  maxConnections: number;
  clock: Clock;
  log: Log;
  onEvent?: (event: HttpEvent) => void;
}

export class HttpServer {
  readonly #options: HttpServerOptions;
  readonly #connections: Connections;
  readonly #reserve: Deno.FsFile[] = [];
  readonly #toldMs = new Map<string, number>();

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#connections = new Connections(options.maxConnections);
    this.#fillReserve();
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Whether somebody at that address had a connection of late. */
  isProven(source: Ip): boolean {
    return this.#connections.isProven(sourceNetwork(source), this.#options.clock.nowMs());
  }

  /** Serves until the signal. */
  async run(signal: AbortSignal, handle: HttpHandler): Promise<void> {
    const { listeners, clock } = this.#options;
    const accepting = listeners.map((listener) => this.#accept(listener, signal, handle));
    while (!signal.aborted) {
      await clock.sleep(SWEEP_MS, signal).catch(() => {});
      this.#connections.sweep(clock.nowMs());
      this.#fillReserve();
    }
    for (const listener of listeners) listener.close();
    await Promise.all(accepting);
    if (this.#connections.areBusy) await clock.sleep(SHUTDOWN_MS);
    this.#connections.closeAll();
    for (const file of this.#reserve.splice(0)) file.close();
  }

  async #accept(listener: Deno.Listener, signal: AbortSignal, handle: HttpHandler): Promise<void> {
    let turnsAway = false;
    while (!signal.aborted) {
      try {
        const conn = await listener.accept();
        if (turnsAway) conn.close();
        else this.#take(conn, handle);
        turnsAway = false;
      } catch (error) {
        if (signal.aborted) return;
        // Who connected and went again before they were accepted.
        if (error instanceof Deno.errors.ConnectionAborted) continue;
        this.#acceptFailed(error);
        // One who waits at the door is turned away rather than left there.
        turnsAway = !this.#connections.closeIdle() && this.#giveUpReserved();
        await this.#options.clock.sleep(PAUSE_AFTER_ERROR_MS, signal).catch(() => {});
        continue;
      }
      this.#fillReserve();
    }
  }

  /** Files ran out, as a rule. */
  #acceptFailed(error: unknown): void {
    this.#options.onEvent?.("accept-failed");
    this.#tell("connections cannot be accepted, new ones are turned away", {
      error: errorText(error),
    });
  }

  #tell(message: string, fields: LogFields): void {
    const { clock, log } = this.#options;
    const nowMs = clock.nowMs();
    if (nowMs - (this.#toldMs.get(message) ?? -Infinity) < TELL_AGAIN_MS) return;
    this.#toldMs.set(message, nowMs);
    log.error(message, { ...fields, connections: this.connections });
  }

  #giveUpReserved(): boolean {
    const file = this.#reserve.pop();
    file?.close();
    return file !== undefined;
  }

  #fillReserve(): void {
    try {
      while (this.#reserve.length < RESERVED_FILES) {
        this.#reserve.push(Deno.openSync("/dev/null"));
      }
    } catch {
      // The next sweep tries again.
    }
  }

  #take(conn: Deno.Conn, handle: HttpHandler): void {
    const { clock, log, onEvent } = this.#options;
    const source = sourceText((conn.remoteAddr as Deno.NetAddr).hostname);
    // Messages of a WebSocket would wait for each other.
    if (!("handshake" in conn)) (conn as Deno.TcpConn).setNoDelay(true);
    const stream = new ConnectionStream(conn as Deno.TcpConn | Deno.TlsConn, READ_BYTES);
    const connection = new Connection({
      source: sourceNetwork(source),
      close: () => stream[Symbol.dispose](),
      nowMs: clock.nowMs(),
    });
    const refusal = this.#connections.admit(connection);
    onEvent?.(refusal ? `refused-${refusal}` : "accepted");
    if (refusal) {
      conn.close();
      this.#tell(REFUSALS[refusal], { source });
      return;
    }
    const caller: Caller = {
      source,
      claimed: (node) => this.#connections.claimed(connection, node),
    };
    const serving = serveConnection({
      stream,
      handle: (request) => this.#answer(connection, request, caller, handle),
      onRefused: () => clock.timer(SHUTDOWN_MS, () => this.#connections.close(connection)),
      date: () => new Date(clock.wallMs()).toUTCString(),
    });
    serving.catch((error) => log.error("request failed", { error: errorText(error) }))
      .finally(() => this.#connections.remove(connection));
  }

  #answer(
    connection: Connection,
    request: ServerRequest,
    caller: Caller,
    handle: HttpHandler,
  ): Promise<ServerAnswer> {
    const { clock } = this.#options;
    const answered = (answer: ServerAnswer) => {
      const isUpgrade = answer.status === 101;
      this.#connections.answered(connection, { isUpgrade, nowMs: clock.nowMs() });
      return answer;
    };
    this.#connections.began(connection, clock.nowMs());
    return Promise.try(handle, request, caller)
      .then(answered, () => answered(textAnswer(500, "internal error\n")));
  }
}

/** Without the interface, and of IPv4 as such where one socket takes both. */
function sourceText(hostname: string): string {
  return parseIp(hostname.split("%")[0]!);
}
