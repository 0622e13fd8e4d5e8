/**
 * The relay over WebSocket, its server's end: one connection for one side of an allocation, one
 * binary message for one datagram. Relay messages go the same way, so that who connects says hello
 * and asks for its allocation before anything else, and again to keep it.
 */
import type { Ip } from "../addr.ts";
import type { RelayDrop } from "./metrics.ts";

/** Per RFC 6455 section 7.4.1. */
const CLOSE_UNSUPPORTED = 1003;
const CLOSE_POLICY = 1008;
const CLOSE_TOO_BIG = 1009;
const CLOSE_GOING_AWAY = 1001;
/** A connection that is bound to no allocation for so long is closed. */
const UNBOUND_MS = 10_000;
const MAX_MESSAGE = 16 * 1024;
/** What waits for a slow reader; more is dropped, as a queue of a router would. */
const MAX_BUFFERED = 256 * 1024;
/** A ping goes out after half of it without a message; no pong until its end: closed. */
const IDLE_TIMEOUT_SECONDS = 50;

const MAX_CONNECTIONS = 8_192;
const MAX_UNBOUND_PER_IP = 64;

/** What the relay does with what comes. */
export interface WebSocketRelay {
  /** A binary message of any kind. */
  onMessage(connection: WebSocketConnection, bytes: Uint8Array<ArrayBuffer>): void;
  onClosed(connection: WebSocketConnection): void;
  isBound(connection: WebSocketConnection): boolean;
}

export class WebSocketConnection {
  readonly transport = "ws";
  /** Names this connection among all of this run. */
  readonly key: string;
  readonly ip: Ip;
  readonly #socket: WebSocket;
  #boundMs: number;

  constructor(
    socket: WebSocket,
    options: { key: string; ip: Ip; relay: WebSocketRelay; nowMs: number },
  ) {
    const { key, ip, relay, nowMs } = options;
    this.key = key;
    this.ip = ip;
    this.#socket = socket;
    this.#boundMs = nowMs;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (!(data instanceof ArrayBuffer)) socket.close(CLOSE_UNSUPPORTED);
      else if (data.byteLength > MAX_MESSAGE) socket.close(CLOSE_TOO_BIG);
      else relay.onMessage(this, new Uint8Array(data));
    };
    // After an error comes a close.
    socket.onerror = (event) => event.preventDefault();
    socket.onclose = () => relay.onClosed(this);
  }

  send(bytes: Uint8Array): RelayDrop | undefined {
    if (this.#socket.readyState !== WebSocket.OPEN) return "send-failed";
    if (this.#socket.bufferedAmount > MAX_BUFFERED) return "buffer-full";
    // Sent later, when the bytes may be others.
    this.#socket.send(bytes.slice());
    return undefined;
  }

  close(): void {
    this.#close(CLOSE_GOING_AWAY);
  }

  /** Ends it when it was of no use for too long; to be called each few seconds. */
  sweep(isBound: boolean, nowMs: number): void {
    if (isBound) this.#boundMs = nowMs;
    else if (nowMs - this.#boundMs >= UNBOUND_MS) this.#close(CLOSE_POLICY);
  }

  #close(code: number): void {
    if (this.#socket.readyState <= WebSocket.OPEN) this.#socket.close(code);
  }
}

export type UpgradeWebSocket = (request: Request) => { socket: WebSocket; response: Response };

const systemUpgrade: UpgradeWebSocket = (request) =>
  Deno.upgradeWebSocket(request, { idleTimeout: IDLE_TIMEOUT_SECONDS });

/** All connections of a relay. */
export class WebSocketConnections {
  readonly #relay: WebSocketRelay;
  readonly #upgrade: UpgradeWebSocket;
  readonly #all = new Set<WebSocketConnection>();
  #made = 0;

  constructor(relay: WebSocketRelay, upgrade: UpgradeWebSocket = systemUpgrade) {
    this.#relay = relay;
    this.#upgrade = upgrade;
  }

  get size(): number {
    return this.#all.size;
  }

  /** The answer to the HTTP request that asks for a WebSocket; `ip` is where it came from. */
  accept(request: Request, ip: Ip, nowMs: number): Response {
    if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      return new Response("a WebSocket is served here\n", { status: 426 });
    }
    if (this.#all.size >= MAX_CONNECTIONS || this.#unboundOf(ip) >= MAX_UNBOUND_PER_IP) {
      return new Response("too many connections\n", {
        status: 503,
        headers: { "retry-after": "10" },
      });
    }
    const { socket, response } = this.#upgrade(request);
    const key = `ws ${++this.#made}`;
    const connection = new WebSocketConnection(socket, { key, ip, relay: this.#relay, nowMs });
    this.#all.add(connection);
    socket.addEventListener("close", () => this.#all.delete(connection));
    return response;
  }

  #unboundOf(ip: Ip): number {
    let count = 0;
    for (const connection of this.#all) {
      if (connection.ip === ip && !this.#relay.isBound(connection)) count++;
    }
    return count;
  }

  sweep(nowMs: number): void {
    for (const connection of this.#all) connection.sweep(this.#relay.isBound(connection), nowMs);
  }

  close(): void {
    for (const connection of this.#all) connection.close();
  }
}
