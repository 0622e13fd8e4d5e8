/**
 * A relay: a main UDP port where nodes measure latency (STUN binding) and ask for allocations, a
 * relayed port for each of them, and WebSockets for nodes that have no UDP.
 *
 * The path of a datagram: it arrives at a relayed port; what is a relay message goes to the desk;
 * anything else goes, untouched and unread, to where the other side of the allocation is bound.
 */
import { type Endpoint, formatEndpoint, parseIp } from "../addr.ts";
import { type Clock, type ListenUdp, type Log, type Random, systemListenUdp } from "../edges.ts";
import { errorText } from "../errors.ts";
import { type NodeKey, shortKey } from "../keys.ts";
import { type ListenAddress, openListen } from "../listen.ts";
import type { ServerAnswer, ServerRequest } from "../server_http.ts";
import { answerBinding, AnswerLimit } from "../stun/mod.ts";
import {
  type Allocation,
  Allocations,
  type PortOpening,
  type Side,
  type Via,
} from "./allocations.ts";
import { Desk } from "./desk.ts";
import type { KernelCounters, KernelForwarding } from "./kernel.ts";
import { isRelayMessage } from "./messages.ts";
import { type RelayDrop, RelayMetrics } from "./metrics.ts";
import {
  type UpgradeWebSocket,
  type WebSocketChannel,
  WebSocketConnections,
} from "./web_socket.ts";

const SWEEP_MS = 5_000;
/** Between two looks at whether what the kernel forwards leaves this host. */
const LOOK_AT_KERNEL_MS = 1_000;
/** Longer than any datagram that a network carries; one that fills it is dropped. */
const MAX_DATAGRAM = 16 * 1024;
const BINDING_ANSWERS_PER_SECOND = 50;
/** After a failed receive, so that an error that stays does not take the whole CPU. */
const PAUSE_AFTER_ERROR_MS = 100;

export interface RelayServerOptions {
  /** Address to bind all ports of the relay on; empty: all of both families. */
  hostname: string;
  /** The main port; 0 takes a free one. */
  port: number;
  /** Relayed ports, both included. */
  ports: { from: number; to: number };
  /** Of each direction of an allocation; 0: no limit. */
  bytesPerSecond: number;
  relayKey: NodeKey;
  /** The coordinator's key, undefined as long as it is not known. */
  grantKey: () => NodeKey | undefined;
  clock: Clock;
  /** The coordinator's time, by which grants end; this host's unless told. */
  wallMs?: () => number;
  random: Random;
  log: Log;
  /** The system's unless told. */
  listenUdp?: ListenUdp;
  upgradeWebSocket?: UpgradeWebSocket;
  /** Forwards what it can, which then does not come here. */
  kernel?: Pick<KernelForwarding, "set" | "counters" | "isHeldBack"> & Disposable;
}

/** Where a side is bound. */
interface RelayVia extends Via {
  readonly transport: "udp" | "ws";
  /** Of UDP. */
  readonly endpoint?: Endpoint;
  /** Undefined when it went out. `bytes` may be used again when the promise has resolved. */
  send(bytes: Uint8Array): Promise<RelayDrop | undefined> | RelayDrop | undefined;
}

export class RelayServer implements Disposable {
  readonly metrics: RelayMetrics;
  readonly #options: RelayServerOptions;
  readonly #closed = new AbortController();
  readonly #allocations: Allocations<RelayVia>;
  readonly #desk: Desk<RelayVia>;
  readonly #bindings = new AnswerLimit(BINDING_ANSWERS_PER_SECOND);
  readonly #mainSockets: Deno.DatagramConn[];
  readonly #sockets = new Map<number, Deno.DatagramConn[]>();
  readonly #webSockets: WebSocketConnections;
  /** Undefined where this program forwards everything. */
  #kernel: RelayServerOptions["kernel"];
  /** What it had forwarded when it was given up. */
  #kernelCounters: KernelCounters | undefined;
  readonly #sideOf = new WeakMap<WebSocketChannel, Side<RelayVia>>();

  /** Throws Deno's error when the main port cannot be had. */
  constructor(options: RelayServerOptions) {
    this.#options = options;
    const { ports, bytesPerSecond, relayKey, grantKey, random } = options;
    this.metrics = new RelayMetrics(() => ({
      allocations: this.#allocations.size,
      ports: this.#allocations.openPorts,
      connections: this.#webSockets.size,
    }), options.kernel && (() => this.#kernel?.counters() ?? this.#kernelCounters!));
    this.#kernel = options.kernel;
    this.#allocations = new Allocations({
      ports: {
        ...ports,
        open: (port) => this.#open(port),
        close: (port) => this.#close(port),
      },
      bytesPerSecond,
      ...(options.kernel ? { onChange: (allocation) => this.#tellKernel(allocation) } : {}),
    });
    this.#desk = new Desk({
      allocations: this.#allocations,
      relayKey,
      grantKey,
      random,
      onResult: (result) => this.metrics.requested(result),
    });
    this.#webSockets = new WebSocketConnections({
      onMessage: (channel, bytes) => this.#fromWebSocket(channel, bytes),
      onClosed: (channel) => this.#unbind(channel),
      isBound: (channel) => this.#sideOf.get(channel)?.via === channel,
    }, options.upgradeWebSocket);
    this.#mainSockets = this.#listen(options.port);
    for (const socket of this.#mainSockets) {
      void this.#receive(socket, (bytes, from) => this.#atMainPort(socket, bytes, from));
    }
    void this.#sweepUntilClosed();
    void this.#watchKernel();
  }

  /** The main port's addresses. */
  get endpoints(): Endpoint[] {
    return this.#mainSockets.map(({ addr }) => endpointOf(addr as Deno.NetAddr));
  }

  [Symbol.dispose](): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    const sockets = [...this.#sockets.values()].flat();
    for (const socket of [...this.#mainSockets, ...sockets]) socket.close();
    this.#webSockets.close();
  }

  async #sweepUntilClosed(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#closed;
    while (!signal.aborted) {
      await clock.sleep(SWEEP_MS, signal).catch(() => {});
      this.#webSockets.sweep(clock.nowMs());
      for (const { nodes } of this.#allocations.sweep(clock.nowMs())) {
        log.debug("relay allocation ended", { keys: nodes.map(shortKey).join() });
      }
    }
  }

  /** The sockets of all ports are open anyway: without the kernel's rules everything comes to them. */
  async #watchKernel(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#closed;
    while (this.#kernel && !signal.aborted) {
      await clock.sleep(LOOK_AT_KERNEL_MS, signal).catch(() => {});
      if (signal.aborted || this.#allocations.size === 0) continue;
      try {
        if (!this.#kernel.isHeldBack()) continue;
        this.#kernelCounters = this.#kernel.counters();
      } catch (error) {
        log.debug("kernel forwarding not looked at", { error: errorText(error) });
        continue;
      }
      log.warn("a firewall holds back what the kernel forwards: this program forwards it instead", {
        hint: "let UDP out from the relay's ports, whoever sends it, and start it again",
      });
      this.#kernel[Symbol.dispose]();
      this.#kernel = undefined;
    }
  }

  // --- UDP

  #open(port: number): PortOpening {
    try {
      const sockets = this.#listen(port);
      this.#sockets.set(port, sockets);
      for (const socket of sockets) {
        void this.#receive(socket, (bytes, from) => this.#atRelayedPort(socket, port, bytes, from));
      }
      return "open";
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) return "taken";
      this.#options.log.warn("relayed port cannot be opened", { port, error: errorText(error) });
      return "failed";
    }
  }

  #listen(port: number): Deno.DatagramConn[] {
    const { hostname, listenUdp = systemListenUdp } = this.#options;
    const open = ({ hostname }: ListenAddress) => {
      const socket = listenUdp(hostname, port);
      port = (socket.addr as Deno.NetAddr).port; // both families have the one that was free
      return socket;
    };
    return openListen({ hostname, port }, open, (socket) => socket.close());
  }

  #close(port: number): void {
    for (const socket of this.#sockets.get(port) ?? []) socket.close();
    this.#sockets.delete(port);
  }

  /** Until the socket is closed. One at a time: the next one waits until this one has left. */
  async #receive(
    socket: Deno.DatagramConn,
    onDatagram: (bytes: Uint8Array, from: Deno.NetAddr) => Promise<void> | void,
  ): Promise<void> {
    const { clock, log } = this.#options;
    const buffer = new Uint8Array(MAX_DATAGRAM);
    while (true) {
      try {
        const [bytes, from] = await socket.receive(buffer);
        if (bytes.length === MAX_DATAGRAM) this.metrics.dropped("too-long");
        else await onDatagram(bytes, from as Deno.NetAddr);
      } catch (error) {
        // What a socket says whose port was closed.
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) {
          return;
        }
        log.debug("relay receive failed", { error: errorText(error) });
        await clock.sleep(PAUSE_AFTER_ERROR_MS, this.#closed.signal).catch(() => {});
        if (this.#closed.signal.aborted) return;
      }
    }
  }

  #atMainPort(socket: Deno.DatagramConn, bytes: Uint8Array, from: Deno.NetAddr): void {
    if (isRelayMessage(bytes)) return this.#answer(bytes, socket, from, 0);
    const source = endpointOf(from);
    const nowMs = this.#options.clock.nowMs();
    if (!this.#bindings.allow(source.ip, nowMs)) return;
    const answer = answerBinding(bytes, source);
    if (!answer || !this.#bindings.allowAnswer(source.ip, bytes, answer, nowMs)) return;
    void socket.send(answer, from).catch(() => {});
  }

  #atRelayedPort(
    socket: Deno.DatagramConn,
    port: number,
    bytes: Uint8Array,
    from: Deno.NetAddr,
  ): Promise<void> | void {
    if (isRelayMessage(bytes)) return this.#answer(bytes, socket, from, port);
    const endpoint = endpointOf(from);
    const source = formatEndpoint(endpoint);
    const side = this.#allocations.boundTo(port, source);
    if (side) return this.#forward(side, bytes);
    this.metrics.dropped("unknown-source");
    const nowMs = this.#options.clock.nowMs();
    const hint = this.#desk.hint({ source, ip: endpoint.ip }, bytes.length, nowMs);
    this.#sendAnswer(socket, from, hint);
  }

  /** Not waited for: data goes on meanwhile. */
  #sendAnswer(
    socket: Deno.DatagramConn,
    to: Deno.NetAddr,
    answer: Promise<Uint8Array | undefined>,
  ): void {
    answer.then(async (bytes) => {
      if (bytes) await socket.send(bytes, to);
    }).catch((error) => {
      this.#options.log.debug("relay answer failed", { error: errorText(error) });
    });
  }

  #answer(
    bytes: Uint8Array,
    socket: Deno.DatagramConn,
    from: Deno.NetAddr,
    port: number,
  ): void {
    const endpoint = endpointOf(from);
    const source = formatEndpoint(endpoint);
    const arrival = {
      source,
      ip: endpoint.ip,
      port,
      ...(port === 0 ? {} : { via: udpVia(endpoint, socket, from) }),
    };
    this.#sendAnswer(socket, from, this.#atDesk(bytes, arrival).then(({ answer }) => answer));
  }

  /** The receive buffer is used again before the desk has looked at everything. */
  #atDesk(bytes: Uint8Array, arrival: Parameters<Desk<RelayVia>["answer"]>[1]) {
    const { clock, wallMs = () => clock.wallMs() } = this.#options;
    const time = { nowMs: clock.nowMs(), wallMs: wallMs() };
    return this.#desk.answer(bytes.slice(), arrival, time);
  }

  async #forward(from: Side<RelayVia>, bytes: Uint8Array): Promise<void> {
    const to = this.#allocations.forward(from, bytes.length, this.#options.clock.nowMs());
    if (typeof to === "string") return this.metrics.dropped(to);
    const { via } = to; // it may be bound elsewhere, or nowhere, by the time that this has left
    const drop = await via.send(bytes);
    if (drop) this.metrics.dropped(drop);
    else this.metrics.forwarded(via.transport, bytes.length);
  }

  /** A pair that the kernel does not take goes this way. */
  #tellKernel(allocation: Allocation<RelayVia>): void {
    if (this.#closed.signal.aborted || !this.#kernel) return;
    const [a, b] = allocation.sides.map(({ via, port }) => {
      return via?.endpoint && { node: via.endpoint, port };
    });
    try {
      this.#kernel.set(allocation, a && b ? [a, b] : undefined);
    } catch (error) {
      this.#options.log.warn("relay allocation not forwarded by the kernel", {
        error: errorText(error),
      });
    }
  }

  // --- WebSocket

  /** The answer to an HTTP request that asks for one; `ip` is where it came from. */
  acceptWebSocket(request: ServerRequest, ip: string): Promise<ServerAnswer> {
    const source = parseIp(ip.split("%")[0]!);
    return this.#webSockets.accept(request, source, this.#options.clock.nowMs());
  }

  #fromWebSocket(channel: WebSocketChannel, bytes: Uint8Array<ArrayBuffer>): void {
    if (isRelayMessage(bytes)) {
      this.#answerWebSocket(channel, bytes).catch((error) => {
        this.#options.log.debug("relay answer failed", { error: errorText(error) });
      });
      return;
    }
    const side = this.#sideOf.get(channel);
    if (side?.via === channel) void this.#forward(side, bytes);
    else this.metrics.dropped("unknown-source");
  }

  async #answerWebSocket(channel: WebSocketChannel, bytes: Uint8Array): Promise<void> {
    const { key: source, ip } = channel;
    const arrival = { source, ip, port: 0, via: channel };
    const { answer, bound } = await this.#atDesk(bytes, arrival);
    if (bound && bound !== this.#sideOf.get(channel)) {
      this.#unbind(channel);
      this.#sideOf.set(channel, bound);
      channel.keep();
    }
    if (answer) channel.send(answer);
  }

  #unbind(channel: WebSocketChannel): void {
    const side = this.#sideOf.get(channel);
    if (side) this.#allocations.unbind(channel, side);
  }
}

function udpVia(endpoint: Endpoint, socket: Deno.DatagramConn, to: Deno.NetAddr): RelayVia {
  return {
    key: formatEndpoint(endpoint),
    endpoint,
    transport: "udp",
    send: async (bytes) => {
      try {
        await socket.send(bytes, to);
        return undefined;
      } catch {
        return "send-failed";
      }
    },
  };
}

function endpointOf({ hostname, port }: Deno.NetAddr): Endpoint {
  return { ip: parseIp(hostname), port };
}
