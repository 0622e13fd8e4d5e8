/**
 * The relay over WebSocket, one peer's part of it. A UDP socket of loopback stands in for the peer: what
 * the node sends there goes through the connection, and what comes by it is sent to the node's port
 * from there. So the kernel's link has a remote address and port like any other.
 */
import { type Endpoint, formatEndpoint, parseIp } from "../addr.ts";
import { type Dialer, openWebSocket } from "../dial/mod.ts";
import { type Clock, type ListenUdp, type Random, systemListenUdp, timeLimit } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { CHANNELS_PROTOCOL } from "./channels.ts";
import { type Channel, RelayConnections, type RelayWebSocket } from "./connections.ts";
import { decodeRelayMessage, encodeError, isRelayMessage, RELAY_ERROR_CODE } from "./messages.ts";
import { RelayError, type RelayLine } from "./exchange.ts";

const OPEN_TIMEOUT_MS = 8_000;
const MAX_DATAGRAM = 16 * 1024;
const NODE_IP = "127.0.0.1";
/** An address that something else has is as likely as not to be hit once in a million. */
const ADDRESS_TRIES = 4;

export interface StandInOptions {
  /** ws: or wss: */
  url: string;
  dialer: Dialer;
  /** The node's UDP port, on 127.0.0.1. */
  nodePort: number;
  clock: Clock;
  random: Random;
  /** A relay message came by the connection. */
  onMessage: (bytes: Uint8Array) => void;
  /** The connection has ended by itself; called once. */
  onClosed: (reason: string) => void;
}

export interface StandInEdges {
  openWebSocket: (options: StandInOptions, signal: AbortSignal) => Promise<RelayWebSocket>;
  listenUdp: ListenUdp;
}

const SYSTEM: StandInEdges = {
  openWebSocket: ({ dialer, url, random }, signal) =>
    openWebSocket(dialer, new URL(url), random, signal, CHANNELS_PROTOCOL),
  listenUdp: systemListenUdp,
};

/** Opens them; those at one relay share a connection where it knows how. */
export class StandIns {
  readonly #edges: StandInEdges;
  readonly #connections = new RelayConnections();

  constructor(edges: StandInEdges = SYSTEM) {
    this.#edges = edges;
  }

  /** Resolves when the connection is open. Throws {@link RelayError} or the signal's reason. */
  async open(options: StandInOptions, signal: AbortSignal): Promise<StandIn> {
    signal.throwIfAborted();
    const { url, clock } = options;
    using tooLate = timeLimit(clock, OPEN_TIMEOUT_MS);
    const either = AbortSignal.any([signal, tooLate.signal]);
    const open = () => this.#edges.openWebSocket(options, either);
    const channel = await this.#connections.open(url, clock, open).catch((cause) => {
      signal.throwIfAborted();
      const reason = tooLate.signal.aborted ? "" : `: ${errorText(cause)}`;
      const hint = cause instanceof GretunError ? cause.hint : undefined;
      throw new RelayError(`the relay does not answer at ${url}${reason}`, undefined, hint);
    });
    try {
      return new StandIn(channel, options, this.#edges.listenUdp);
    } catch (error) {
      channel[Symbol.dispose]();
      throw error;
    }
  }
}

export class StandIn implements RelayLine, Disposable {
  readonly key: string;
  /** Where the node sends what is for the peer, and what comes from the peer comes from. */
  readonly endpoint: Endpoint;
  readonly #socket: Deno.DatagramConn;
  readonly #channel: Channel;
  readonly #node: Deno.NetAddr;
  readonly #options: StandInOptions;
  #isClosed = false;

  constructor(channel: Channel, options: StandInOptions, listenUdp: ListenUdp) {
    this.#options = options;
    this.#channel = channel;
    this.#node = { transport: "udp", hostname: NODE_IP, port: options.nodePort };
    this.#socket = listenSomewhere(listenUdp, options.random);
    const { hostname, port } = this.#socket.addr as Deno.NetAddr;
    this.endpoint = { ip: parseIp(hostname), port };
    this.key = `${options.url} ${formatEndpoint(this.endpoint)}`;
    channel.events = {
      onMessage: (bytes) => this.#fromRelay(bytes),
      onClosed: (reason) => this.#end(reason),
    };
    void this.#receive();
  }

  /** To the relay itself, or to the peer. Dropped while too much waits. */
  send(bytes: Uint8Array): void {
    this.#channel.send(bytes);
  }

  unanswered(): void {
    this.#channel.unanswered();
  }

  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
    this.#channel[Symbol.dispose]();
  }

  #fromRelay(bytes: Uint8Array): void {
    if (isRelayMessage(bytes)) this.#options.onMessage(bytes);
    else if (!this.#isClosed) void this.#socket.send(bytes, this.#node).catch(() => {});
  }

  /** The node, which sends nothing else of a relay's here, asks whether datagrams get here and back. */
  #answer(hello: Uint8Array): void {
    const { txId } = decodeRelayMessage(hello);
    const answer = encodeError({ txId, code: RELAY_ERROR_CODE.UNAUTHENTICATED });
    void this.#socket.send(answer, this.#node).catch(() => {});
  }

  #end(reason: string): void {
    if (this.#isClosed) return;
    this[Symbol.dispose]();
    this.#options.onClosed(reason);
  }

  /** Other programs of this host are not the node, and could forge what goes to the peer. */
  async #receive(): Promise<void> {
    const buffer = new Uint8Array(MAX_DATAGRAM);
    while (!this.#isClosed) {
      try {
        const [bytes, from] = await this.#socket.receive(buffer);
        const { hostname, port } = from as Deno.NetAddr;
        const isNode = hostname === NODE_IP && port === this.#node.port;
        if (!isNode || bytes.length === MAX_DATAGRAM) continue;
        if (isRelayMessage(bytes)) this.#answer(bytes);
        else this.send(bytes);
      } catch (error) {
        if (this.#isClosed) return;
        // Nobody listens at the node's port: ECONNREFUSED of an earlier send.
        if (!(error instanceof Deno.errors.ConnectionRefused)) return this.#end(String(error));
      }
    }
  }
}

/**
 * 127.64.0.0/10, another address for each peer: a kernel tunnel without a key is told from others
 * by its remote address alone.
 */
function listenSomewhere(listenUdp: ListenUdp, random: Random): Deno.DatagramConn {
  for (let tries = 1;; tries++) {
    const [a, b, c] = random(3);
    const hostname = `127.${64 + (a! & 63)}.${b!}.${c!}`;
    try {
      return listenUdp(hostname, 0);
    } catch (error) {
      if (tries === ADDRESS_TRIES) throw error;
    }
  }
}
