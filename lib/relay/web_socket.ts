/**
 * The relay over WebSocket, its server's end: a connection carries one side of an allocation in each
 * of its channels, one binary message for one datagram. Relay messages go the same way, so that who
 * opens a channel says hello and asks for its allocation before anything else, and again to keep it.
 */
import type { Ip } from "../addr.ts";
import { CHANNELS_PROTOCOL, inChannel, readChannel, WaitingShares } from "./channels.ts";
import type { RelayDrop } from "./metrics.ts";

/** Per RFC 6455 section 7.4.1. */
const CLOSE_UNSUPPORTED = 1003;
const CLOSE_POLICY = 1008;
const CLOSE_TOO_BIG = 1009;
const CLOSE_GOING_AWAY = 1001;
/** A connection none of whose channels is bound to an allocation for so long is closed. */
const UNBOUND_MS = 10_000;
const MAX_MESSAGE = 16 * 1024;
/** A ping goes out after half of it without a message; no pong until its end: closed. */
const IDLE_TIMEOUT_SECONDS = 50;

const MAX_CONNECTIONS = 8_192;
const MAX_UNBOUND_PER_IP = 64;

/** The only one of a connection without channels. */
const ONLY_CHANNEL = 0;

/** What the relay does with what comes. */
export interface WebSocketRelay {
  /** A binary message of any kind. */
  onMessage(channel: WebSocketChannel, bytes: Uint8Array<ArrayBuffer>): void;
  onClosed(channel: WebSocketChannel): void;
  isBound(channel: WebSocketChannel): boolean;
}

/** A way to a node, for one of its peers. */
export class WebSocketChannel {
  readonly transport = "ws";
  /** Names this channel among all of this run. */
  readonly key: string;
  readonly #connection: WebSocketConnection;
  readonly #number: number;

  constructor(connection: WebSocketConnection, number: number) {
    this.key = `${connection.key} ${number}`;
    this.#connection = connection;
    this.#number = number;
  }

  get ip(): Ip {
    return this.#connection.ip;
  }

  send(bytes: Uint8Array): RelayDrop | undefined {
    return this.#connection.send(this.#number, bytes);
  }

  /** It is bound now, and what comes next by that number is meant for it. */
  keep(): void {
    this.#connection.keep(this.#number, this);
  }
}

class WebSocketConnection {
  readonly key: string;
  readonly ip: Ip;
  readonly #socket: WebSocket;
  readonly #relay: WebSocketRelay;
  readonly #hasChannels: boolean;
  /** Those that were bound. */
  readonly #channels = new Map<number, WebSocketChannel>();
  readonly #shares = new WaitingShares();
  #boundMs: number;

  constructor(
    socket: WebSocket,
    options: { key: string; ip: Ip; relay: WebSocketRelay; hasChannels: boolean; nowMs: number },
  ) {
    this.key = options.key;
    this.ip = options.ip;
    this.#relay = options.relay;
    this.#hasChannels = options.hasChannels;
    this.#socket = socket;
    this.#boundMs = options.nowMs;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (!(data instanceof ArrayBuffer)) socket.close(CLOSE_UNSUPPORTED);
      else if (data.byteLength > MAX_MESSAGE) socket.close(CLOSE_TOO_BIG);
      else this.#received(new Uint8Array(data));
    };
    // After an error comes a close.
    socket.onerror = (event) => event.preventDefault();
    socket.onclose = () => {
      for (const channel of this.#channels.values()) this.#relay.onClosed(channel);
    };
  }

  #received(message: Uint8Array<ArrayBuffer>): void {
    const { channel: number, bytes } = this.#hasChannels
      ? readChannel(message) ?? { channel: ONLY_CHANNEL, bytes: message }
      : { channel: ONLY_CHANNEL, bytes: message };
    const channel = this.#channels.get(number);
    if (this.#hasChannels && bytes.length === 0) {
      this.#channels.delete(number);
      if (channel) this.#relay.onClosed(channel);
    } else {
      this.#relay.onMessage(channel ?? new WebSocketChannel(this, number), bytes);
    }
  }

  keep(number: number, channel: WebSocketChannel): void {
    this.#channels.set(number, channel);
  }

  send(channel: number, bytes: Uint8Array): RelayDrop | undefined {
    if (this.#socket.readyState !== WebSocket.OPEN) return "send-failed";
    if (!this.#shares.take(channel, bytes.length, this.#socket.bufferedAmount)) {
      return "buffer-full";
    }
    // Sent later, when the bytes may be others.
    this.#socket.send(this.#hasChannels ? inChannel(channel, bytes) : bytes.slice());
    return undefined;
  }

  close(): void {
    this.#close(CLOSE_GOING_AWAY);
  }

  get isBound(): boolean {
    return [...this.#channels.values()].some((channel) => this.#relay.isBound(channel));
  }

  /** Ends it when it was of no use for too long; to be called each few seconds. */
  sweep(nowMs: number): void {
    for (const [number, channel] of this.#channels) {
      if (!this.#relay.isBound(channel)) this.#channels.delete(number);
    }
    if (this.#channels.size > 0) this.#boundMs = nowMs;
    else if (nowMs - this.#boundMs >= UNBOUND_MS) this.#close(CLOSE_POLICY);
  }

  #close(code: number): void {
    if (this.#socket.readyState <= WebSocket.OPEN) this.#socket.close(code);
  }
}

export type UpgradeWebSocket = (
  request: Request,
  options: { protocol?: string },
) => { socket: WebSocket; response: Response };

const systemUpgrade: UpgradeWebSocket = (request, options) =>
  Deno.upgradeWebSocket(request, { ...options, idleTimeout: IDLE_TIMEOUT_SECONDS });

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
    const asked = request.headers.get("sec-websocket-protocol")?.split(/, */) ?? [];
    const hasChannels = asked.includes(CHANNELS_PROTOCOL);
    const options = hasChannels ? { protocol: CHANNELS_PROTOCOL } : {};
    const { socket, response } = this.#upgrade(request, options);
    const key = `ws ${++this.#made}`;
    const relay = this.#relay;
    const connection = new WebSocketConnection(socket, { key, ip, relay, hasChannels, nowMs });
    this.#all.add(connection);
    socket.addEventListener("close", () => this.#all.delete(connection));
    return response;
  }

  #unboundOf(ip: Ip): number {
    let count = 0;
    for (const connection of this.#all) {
      if (connection.ip === ip && !connection.isBound) count++;
    }
    return count;
  }

  sweep(nowMs: number): void {
    for (const connection of this.#all) connection.sweep(nowMs);
  }

  close(): void {
    for (const connection of this.#all) connection.close();
  }
}
