/**
 * WebSockets to relays, their node's end. One connection to a relay carries a channel for each peer; to a
 * relay that knows no channels there is one connection for each.
 */
import type { Clock } from "../edges.ts";
import type { WebSocketEnd } from "../web_socket.ts";
import { CHANNELS, CHANNELS_PROTOCOL, inChannel, readChannel, WaitingShares } from "./channels.ts";

/** A connection from which nothing came for so long is dead if somebody waits for an answer. */
const SILENT_MS = 3_000;
const ONLY_CHANNEL = 0;

/** A connection that is open. */
export type RelayWebSocket =
  & Pick<WebSocketEnd, "start" | "protocol" | "bufferedBytes" | "send">
  & Disposable;

export interface ChannelEvents {
  onMessage(bytes: Uint8Array<ArrayBuffer>): void;
  /** The connection has ended by itself; called once. */
  onClosed(reason: string): void;
}

export class RelayConnections {
  /** By URL: those that take more channels, or may do so once they are open. */
  readonly #shared = new Map<string, Promise<Connection>>();

  /** In the connection that there is, or a new one. Throws what `openWebSocket` throws. */
  async open(
    url: string,
    clock: Clock,
    openWebSocket: () => Promise<RelayWebSocket>,
  ): Promise<Channel> {
    const shared = this.#shared.get(url);
    if (shared) {
      const connection = await shared;
      if (connection.isClosed) return await this.open(url, clock, openWebSocket);
      if (connection.hasChannels) return connection.open();
      return new Connection(await openWebSocket(), clock, () => {}).open();
    }
    const forget = () => this.#shared.delete(url);
    const opening = openWebSocket().then((web) => new Connection(web, clock, forget));
    this.#shared.set(url, opening);
    try {
      const connection = await opening;
      if (!connection.hasChannels) forget();
      return connection.open();
    } catch (error) {
      forget();
      throw error;
    }
  }
}

class Connection {
  readonly hasChannels: boolean;
  readonly #web: RelayWebSocket;
  readonly #clock: Clock;
  readonly #onEnd: () => void;
  readonly #channels = new Map<number, Channel>();
  readonly #shares = new WaitingShares();
  #next = ONLY_CHANNEL;
  #heardMs: number;
  #isClosed = false;

  constructor(web: RelayWebSocket, clock: Clock, onEnd: () => void) {
    this.#web = web;
    this.#clock = clock;
    this.#onEnd = onEnd;
    this.#heardMs = clock.nowMs();
    this.hasChannels = web.protocol === CHANNELS_PROTOCOL;
    web.start({
      onMessage: (message) => this.#received(message),
      onClosed: (reason) => this.#end(reason),
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  open(): Channel {
    while (this.#channels.has(this.#next)) this.#next = (this.#next + 1) % CHANNELS;
    const channel = new Channel(this, this.#next);
    this.#channels.set(this.#next, channel);
    this.#next = (this.#next + 1) % CHANNELS;
    return channel;
  }

  send(channel: number, bytes: Uint8Array): void {
    if (!this.#shares.take(channel, bytes.length, this.#web.bufferedBytes)) return;
    this.#web.send(this.hasChannels ? inChannel(channel, bytes) : bytes);
  }

  close(channel: number): void {
    if (!this.#channels.delete(channel) || this.#isClosed) return;
    if (this.#channels.size === 0) this.#end("not needed any more");
    else this.send(channel, new Uint8Array());
  }

  unanswered(): void {
    if (this.#clock.nowMs() - this.#heardMs >= SILENT_MS) this.#end("the relay does not answer");
  }

  #received(message: Uint8Array<ArrayBuffer>): void {
    this.#heardMs = this.#clock.nowMs();
    if (!this.hasChannels) return this.#channels.get(ONLY_CHANNEL)?.events?.onMessage(message);
    const read = readChannel(message);
    if (read) this.#channels.get(read.channel)?.events?.onMessage(read.bytes);
  }

  #end(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onEnd();
    this.#web[Symbol.dispose]();
    for (const channel of [...this.#channels.values()]) channel.events?.onClosed(reason);
  }
}

export class Channel implements Disposable {
  /** Nothing is received before. */
  events: ChannelEvents | undefined;
  readonly #connection: Connection;
  readonly #number: number;

  constructor(connection: Connection, number: number) {
    this.#connection = connection;
    this.#number = number;
  }

  /** Dropped while too much waits. */
  send(bytes: Uint8Array): void {
    this.#connection.send(this.#number, bytes);
  }

  /** The relay has not answered: it may be the connection that is dead. */
  unanswered(): void {
    this.#connection.unanswered();
  }

  [Symbol.dispose](): void {
    this.#connection.close(this.#number);
  }
}
