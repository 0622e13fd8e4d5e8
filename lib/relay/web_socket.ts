/**
 * The relay over WebSocket, its server's end: a connection carries one side of an allocation in each
 * of its channels, one binary message for one datagram. Relay messages go the same way, so that who
 * opens a channel says hello and asks for its allocation before anything else, and again to keep it.
 */
import type { Ip } from "../addr.ts";
import { type ServerAnswer, type ServerRequest, textAnswer } from "../server_http.ts";
import { WebSocketEnd, type WebSocketEndOptions } from "../web_socket.ts";
import { acceptOf, CLOSE } from "../web_socket_frames.ts";
import { CHANNELS_PROTOCOL, inChannel, readChannel, WaitingShares } from "./channels.ts";
import type { RelayDrop } from "./metrics.ts";

/** A connection none of whose channels is bound to an allocation for so long is closed. */
const UNBOUND_MS = 10_000;
const MAX_MESSAGE = 16 * 1024;
/** Of the protocol. */
const VERSION = "13";

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
  readonly #socket: ServerWebSocket;
  readonly #relay: WebSocketRelay;
  readonly #hasChannels: boolean;
  /** Those that were bound. */
  readonly #channels = new Map<number, WebSocketChannel>();
  readonly #shares = new WaitingShares();
  #boundMs: number;

  constructor(
    socket: ServerWebSocket,
    options: { key: string; ip: Ip; relay: WebSocketRelay; hasChannels: boolean; nowMs: number },
    onClosed: (connection: WebSocketConnection) => void,
  ) {
    this.key = options.key;
    this.ip = options.ip;
    this.#relay = options.relay;
    this.#hasChannels = options.hasChannels;
    this.#socket = socket;
    this.#boundMs = options.nowMs;
    socket.start({
      onMessage: (message) => this.#received(message),
      onClosed: () => {
        for (const channel of this.#channels.values()) this.#relay.onClosed(channel);
        onClosed(this);
      },
    });
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
    if (!this.#socket.isOpen) return "send-failed";
    if (!this.#shares.take(channel, bytes.length, this.#socket.bufferedBytes)) {
      return "buffer-full";
    }
    this.#socket.send(this.#hasChannels ? inChannel(channel, bytes) : bytes);
    return undefined;
  }

  close(): void {
    this.#socket.close(CLOSE.goingAway);
    this.#socket[Symbol.dispose]();
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
    else if (nowMs - this.#boundMs >= UNBOUND_MS) this.#socket.close(CLOSE.policy);
    this.#socket.sweep(nowMs);
  }
}

/** `send` may use the bytes until it returns. */
export type ServerWebSocket =
  & Pick<WebSocketEnd, "start" | "isOpen" | "bufferedBytes" | "send" | "close" | "sweep">
  & Disposable;

/** Of a request whose answer is 101. */
export type UpgradeWebSocket = (
  request: ServerRequest,
  options: Pick<WebSocketEndOptions, "protocol">,
) => ServerWebSocket;

/** The runtime's own end of a WebSocket keeps messages of up to 64 MiB while they come. */
export const upgradeWebSocket: UpgradeWebSocket = (request, { protocol }) => {
  const { stream } = request;
  const read = () => request.read();
  return new WebSocketEnd({ stream, read, maxMessage: MAX_MESSAGE, protocol });
};

/** All connections of a relay. */
export class WebSocketConnections {
  readonly #relay: WebSocketRelay;
  readonly #upgrade: UpgradeWebSocket;
  readonly #all = new Set<WebSocketConnection>();
  #made = 0;

  constructor(relay: WebSocketRelay, upgrade: UpgradeWebSocket = upgradeWebSocket) {
    this.#relay = relay;
    this.#upgrade = upgrade;
  }

  get size(): number {
    return this.#all.size;
  }

  /** The answer to the HTTP request that asks for a WebSocket; `ip` is where it came from. */
  async accept(request: ServerRequest, ip: Ip, nowMs: number): Promise<ServerAnswer> {
    if (!asksForWebSocket(request)) {
      const headers = { "upgrade": "websocket", "sec-websocket-version": VERSION };
      return textAnswer(426, "a WebSocket is served here\n", headers);
    }
    const accept = await acceptOf(request.headers.get("sec-websocket-key")!);
    if (this.#all.size >= MAX_CONNECTIONS || this.#unboundOf(ip) >= MAX_UNBOUND_PER_IP) {
      return textAnswer(503, "too many connections\n", { "retry-after": "10" });
    }
    const asked = request.headers.get("sec-websocket-protocol")?.split(/, */) ?? [];
    const hasChannels = asked.includes(CHANNELS_PROTOCOL);
    const protocol = hasChannels ? CHANNELS_PROTOCOL : undefined;
    const socket = this.#upgrade(request, { protocol });
    const options = { key: `ws ${++this.#made}`, ip, relay: this.#relay, hasChannels, nowMs };
    this.#all.add(
      new WebSocketConnection(socket, options, (connection) => this.#all.delete(connection)),
    );
    return {
      status: 101,
      headers: {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-accept": accept,
        ...(protocol === undefined ? {} : { "sec-websocket-protocol": protocol }),
      },
      body: new Uint8Array(),
    };
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

/** RFC 6455 section 4.2.1. */
function asksForWebSocket({ method, headers }: ServerRequest): boolean {
  const has = (name: string, wanted: string) =>
    (headers.get(name) ?? "").toLowerCase().split(/, */).includes(wanted);
  return method === "GET" && has("connection", "upgrade") && has("upgrade", "websocket") &&
    headers.get("sec-websocket-version") === VERSION && headers.has("sec-websocket-key");
}
