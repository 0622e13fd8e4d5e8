/** WebSockets between machines of the simulation. */
import type { RelayWebSocket } from "../../../lib/relay/mod.ts";
import type { ServerWebSocket, UpgradeWebSocket } from "../../../lib/relay/web_socket.ts";
import type { WebSocketEvents } from "../../../lib/web_socket.ts";
import type { SimHost } from "./host.ts";

interface Ends {
  server: End;
  protocol?: string | undefined;
}

/** By the signal of the request. */
const upgraded = new WeakMap<AbortSignal, Ends>();

class End implements ServerWebSocket {
  isOpen = false;
  readonly bufferedBytes = 0;
  other: End | undefined;
  #events: WebSocketEvents | undefined;
  #hasEnded = false;
  readonly #later: (fire: () => void) => void;
  readonly #isLost: () => boolean;

  constructor(later: (fire: () => void) => void, isLost: () => boolean) {
    this.#later = later;
    this.#isLost = isLost;
  }

  start(events: WebSocketEvents): void {
    this.#events = events;
  }

  send(bytes: Uint8Array): void {
    const copy = bytes.slice();
    this.#later(() => {
      const { other } = this;
      if (other?.isOpen && !this.#isLost()) other.#events?.onMessage(copy);
    });
  }

  close(code: number): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#later(() => {
      this.ended(code);
      if (!this.#isLost()) this.other?.ended(code);
    });
  }

  sweep(): void {}

  [Symbol.dispose](): void {
    this.close(1000);
  }

  ended(code: number): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.isOpen = false;
    this.#events?.onClosed(`closed with ${code}`);
  }
}

/** Resolves when it is open. */
export async function openWebSocket(
  host: SimHost,
  url: string,
  signal: AbortSignal,
): Promise<RelayWebSocket> {
  const { server, trace } = await host.connect(url, signal);
  const { delayMs, station, epoch } = trace;
  const later = (fire: () => void) => void host.time.after(delayMs, fire);
  const { hostname, port } = new URL(url);
  const [ip] = await host.lookup(hostname);
  const isLost = () => {
    const now = host.trace(ip!);
    return now?.station !== station || now.epoch !== epoch;
  };
  const client = new End(later, isLost);
  const request = new Request(url.replace(/^ws/, "http"), {
    headers: {
      "connection": "Upgrade",
      "upgrade": "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
      "sec-websocket-protocol": "other, gretun-relay-channels",
    },
  });
  const ends: Ends = { server: new End(later, isLost) };
  upgraded.set(request.signal, ends);
  await server.servers.get(Number(port || 80))!(request, trace.source);
  if (!ends.server.isOpen) throw new Error("refused");
  [client.other, ends.server.other] = [ends.server, client];
  server.serving.addEventListener("abort", () => client.ended(1006), { once: true });
  client.isOpen = true;
  return {
    protocol: ends.protocol,
    bufferedBytes: 0,
    start: (events) => client.start(events),
    send: (bytes) => client.send(bytes),
    [Symbol.dispose]: () => client[Symbol.dispose](),
  };
}

/** As the relay's own. */
export const upgradeWebSocket: UpgradeWebSocket = (request, { protocol }) => {
  const ends = upgraded.get(request.signal)!;
  ends.protocol = protocol;
  ends.server.isOpen = true;
  return ends.server;
};
