/** A machine: a kernel with its sockets, a clock, and connections to others' HTTP servers. */
import { type Endpoint, familyOf, type Ip, isUnspecified, parseIp } from "../../../lib/addr.ts";
import type { Datagram } from "../../../lib/edges.ts";
import type { EngineOptions } from "../../../lib/engine/mod.ts";
import type { Host, SignalPort, UdpPort } from "../../../lib/host/mod.ts";
import type { CoordHttp } from "../../../lib/coord/client.ts";
import { ConnectionEndedError, DialError, type HttpRequest } from "../../../lib/dial/mod.ts";
import {
  endpointOf,
  isSignalling,
  type Locks,
  type RawUdpOptions,
  type SockAddr,
  sockAddrOf,
  SystemError,
} from "../../../lib/linux/mod.ts";
import type { Fou, RtNetlink } from "../../../lib/netlink.ts";
import type { Nft } from "../../../lib/nft/mod.ts";
import { type FakeUdpOptions, type Machine, MemoryEngine, type Tun } from "../../fakes/engine.ts";
import { NftKernel } from "../../fakes/nft_kernel.ts";
import { SimKernel } from "./kernel.ts";
import type { Station, Trace } from "./net.ts";
import type { Packet } from "./packet.ts";
import { SimClock, type SimTime } from "./time.ts";

const ENOENT = 2;

/** What answers at a TCP port. */
export type Serve = (request: Request, source: Ip) => Response | Promise<Response>;

export class SimHost implements Host, Machine, Station {
  readonly name: string;
  readonly kernel: SimKernel;
  readonly clock: SimClock;
  /** Its rules are kept, and change nothing for packets. */
  readonly nft = new NftKernel();
  /** HTTP servers by port. */
  readonly servers = new Map<number, Serve>();
  /** Names that this host can resolve, besides addresses. */
  readonly names = new Map<string, Ip[]>();
  /** Links whose packets have their checksums filled in before they are sent. */
  readonly summed = new Set<string>();
  readonly #time: SimTime;
  readonly #locks = new Map<string, string>();
  /** Ends connections of this host's programs. */
  #living = new AbortController();
  /** Ends what connections to this host's servers there are. */
  #serving = new AbortController();

  constructor(name: string, time: SimTime) {
    this.name = name;
    this.#time = time;
    this.kernel = new SimKernel(time);
    this.clock = new SimClock(time);
  }

  receive(packet: Packet): void {
    this.kernel.receive(packet);
  }

  // --- Host

  readonly locks: Locks = {
    tryLock: (name, role) => {
      if (this.#locks.has(name)) return undefined;
      this.#locks.set(name, role);
      return { [Symbol.dispose]: () => void this.#locks.delete(name) };
    },
    holder: (name) => {
      const role = this.#locks.get(name);
      return role === undefined ? undefined : { role, pid: 1 };
    },
  };

  openRtNetlink(): RtNetlink {
    return this.kernel.openRtNetlink();
  }

  openFou(): Fou {
    return this.kernel.openFou();
  }

  setChecksumOffload(ifname: string, isOn: boolean): void {
    if (isOn) this.summed.delete(ifname);
    else this.summed.add(ifname);
  }

  openNft(): Nft {
    return this.nft.open();
  }

  loadModule(): boolean {
    return false;
  }

  watchNetwork(onChange: () => void): Disposable {
    return this.kernel.watch(onChange);
  }

  watchTables(onChange: () => void): Disposable {
    return this.nft.watch(onChange);
  }

  readFile(path: string): string {
    throw new SystemError(`open ${path}`, ENOENT);
  }

  writeFile(path: string): void {
    throw new SystemError(`open ${path}`, ENOENT);
  }

  readLink(): undefined {}

  openUdp(
    { port, bind, family = 4, without }: FakeUdpOptions,
    onDatagram: (bytes: Uint8Array, source: SockAddr) => void,
  ): UdpPort {
    const listener = this.kernel.listenUdp(
      { port, family, ...(bind ? { bind } : {}) },
      (bytes, from) => {
        if (!without || !isSignalling(without, bytes)) onDatagram(bytes, sockAddrOf(from));
      },
    );
    return {
      port: listener.port,
      send: (bytes, to, ttl) => {
        const options = { ...(ttl === undefined ? {} : { ttl }), ...(bind ? { bind } : {}) };
        this.kernel.sendUdp(listener.port, bytes, endpointOf(to), options);
      },
      [Symbol.dispose]: () => listener[Symbol.dispose](),
    };
  }

  openRawUdp(
    port: number,
    options: RawUdpOptions,
    onDatagram: (datagram: Datagram) => void,
  ): SignalPort {
    const listener = this.kernel.listenRaw({
      port,
      options,
      onDatagram: (bytes, from) => onDatagram({ bytes, from }),
    });
    return {
      send: (bytes, to, ttl) => {
        if (familyOf(to.ip) !== (options.family ?? 4)) return;
        this.kernel.sendUdp(port, bytes, to, ttl === undefined ? {} : { ttl });
      },
      [Symbol.dispose]: () => listener[Symbol.dispose](),
    };
  }

  openRawSender(port: number, family: 4 | 6): SignalPort {
    return {
      send: (bytes, to, ttl) => {
        if (familyOf(to.ip) !== family) return;
        this.kernel.sendUdp(port, bytes, to, ttl === undefined ? {} : { ttl });
      },
      [Symbol.dispose]() {},
    };
  }

  openEngine(options: EngineOptions): MemoryEngine {
    return new MemoryEngine(this, options);
  }

  tryTun(): void {}

  openTun(name: string, onPacket: (packet: Uint8Array) => void): Tun {
    const ifindex = this.kernel.openTun(name, onPacket);
    return {
      name,
      write: (packet) => this.kernel.write(ifindex, packet),
      [Symbol.dispose]: () => {
        if (this.kernel.links.has(ifindex)) this.kernel.removeLink(name);
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** What had sockets and locks was killed. */
  kill(): void {
    this.kernel.closeSockets();
    this.#locks.clear();
    this.#living.abort();
    this.#living = new AbortController();
  }

  // --- servers that Deno's sockets are for

  /** As `Deno.listenDatagram`. */
  readonly listenDatagram = (hostname: string, port: number): Deno.DatagramConn => {
    const ip = parseIp(hostname);
    const waiting: PromiseWithResolvers<[Uint8Array, Deno.Addr]>[] = [];
    const queue: [Uint8Array, Deno.Addr][] = [];
    let isClosed = false;
    const listener = this.kernel.listenUdp(
      { port, family: familyOf(ip), ...(isUnspecified(ip) ? {} : { bind: ip }) },
      (bytes, from) => {
        const datagram: [Uint8Array, Deno.Addr] = [bytes, netAddr(from)];
        const reader = waiting.shift();
        if (reader) reader.resolve(datagram);
        else queue.push(datagram);
      },
    );
    const socket = {
      addr: netAddr({ ip, port: listener.port }),
      async receive(): Promise<[Uint8Array, Deno.Addr]> {
        if (isClosed) throw new Deno.errors.BadResource("closed");
        const next = queue.shift();
        if (next) return next;
        const reader = Promise.withResolvers<[Uint8Array, Deno.Addr]>();
        waiting.push(reader);
        return await reader.promise;
      },
      send: async (bytes: Uint8Array, to: Deno.Addr): Promise<number> => {
        const { hostname, port } = to as Deno.NetAddr;
        const bind = isUnspecified(ip) ? {} : { bind: ip };
        this.kernel.sendUdp(listener.port, bytes, { ip: parseIp(hostname), port }, bind);
        return bytes.length;
      },
      close(): void {
        isClosed = true;
        listener[Symbol.dispose]();
        for (const reader of waiting) reader.reject(new Deno.errors.BadResource("closed"));
      },
    };
    return socket as unknown as Deno.DatagramConn;
  };

  // --- HTTP

  readonly lookup = async (hostname: string): Promise<Ip[]> => {
    const known = this.names.get(hostname);
    if (known) return known;
    try {
      return [parseIp(hostname.replace(/^\[|\]$/g, ""))];
    } catch {
      throw new Error(`getaddrinfo ENOTFOUND ${hostname}`);
    }
  };

  /** Connections to this host's servers end, as when their program does. */
  resetConnections(): void {
    this.#serving.abort();
    this.#serving = new AbortController();
  }

  /** What a connection to an address leads to; undefined where nothing gets there. */
  trace(ip: Ip): Trace | undefined {
    if (this.kernel.isLocal(ip)) return { source: ip, station: this, delayMs: 0.05, epoch: "" };
    const way = this.kernel.wayTo(ip);
    return way?.wire && "trace" in way.wire
      ? (way.wire as unknown as { trace(source: Ip, hop: Ip, to: Ip): Trace | undefined })
        .trace(way.source, way.nextHop, ip)
      : undefined;
  }

  /** Connections to HTTP servers; a request under way goes on when they are forgotten. */
  openHttp(): CoordHttp {
    const closed = new AbortController();
    return {
      request: (url, request) => this.#request(url, request, closed.signal),
      forgetConnections() {},
      [Symbol.dispose]: () => closed.abort(),
    };
  }

  /** A lost connection stays without answer, until who asked has had enough. */
  async #request(url: string, init: HttpRequest, closed: AbortSignal): Promise<Response> {
    const { hostname, port, protocol } = new URL(url);
    const signal = AbortSignal.any([init.signal, closed, this.#living.signal]);
    const [ip] = await this.lookup(hostname);
    const trace = this.trace(ip!);
    if (!this.kernel.wayTo(ip!)) throw new DialError("no route to host", "Check the network");
    if (!trace) return await never(signal);
    const server = trace.station as SimHost;
    const { delayMs, source, epoch } = trace;
    await this.clock.sleep(2 * delayMs, signal); // its connection
    const serve = server.servers?.get(Number(port || (protocol === "https:" ? 443 : 80)));
    if (!serve) {
      const cause = new AggregateError([new Deno.errors.ConnectionRefused()]);
      throw new DialError("connection refused", "Check that it runs", { cause });
    }
    const serving = server.#serving.signal;
    await this.clock.sleep(delayMs, signal);
    const hungUp = AbortSignal.any([signal, serving]);
    const { method, headers, body } = init;
    const request = new Request(url, {
      ...{ method, signal: hungUp },
      ...(headers ? { headers } : {}),
      ...(body === undefined ? {} : { body }),
    });
    if (body !== undefined) request.headers.set("content-length", String(body.length));
    const answered = Promise.resolve(serve(request, source));
    const response = await Promise.race([answered, broken(serving), never(signal)]);
    if (this.trace(ip!)?.epoch !== epoch) return await never(signal);
    await this.clock.sleep(delayMs, signal);
    return response;
  }

  /** A connection for messages both ways, as a WebSocket is. */
  async connect(url: string, signal: AbortSignal): Promise<{ server: SimHost; trace: Trace }> {
    const { hostname, port, protocol } = new URL(url);
    const [ip] = await this.lookup(hostname);
    const trace = this.trace(ip!);
    if (!trace) return await never(signal);
    await this.clock.sleep(2 * trace.delayMs, signal);
    const server = trace.station as SimHost;
    if (!server.servers?.has(Number(port || (protocol === "wss:" ? 443 : 80)))) {
      throw new TypeError("connection refused");
    }
    return { server, trace };
  }

  get serving(): AbortSignal {
    return this.#serving.signal;
  }

  get time(): SimTime {
    return this.#time;
  }
}

function netAddr({ ip, port }: Endpoint): Deno.NetAddr {
  return { transport: "udp", hostname: ip, port };
}

/** Until the signal is aborted. */
function never(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

function broken(serving: AbortSignal): Promise<never> {
  return never(serving).catch(() => {
    throw new ConnectionEndedError("the connection was closed without an answer");
  });
}
