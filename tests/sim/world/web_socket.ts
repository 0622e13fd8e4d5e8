/** WebSockets between machines of the simulation. */
import type { RelayWebSocket } from "../../../lib/relay/mod.ts";
import type { SimHost } from "./host.ts";

interface Ends {
  server: End;
  protocol?: string | undefined;
}

const upgraded = new WeakMap<Request, Ends>();

/** What programs use of a WebSocket. */
class End {
  readyState: number = WebSocket.CONNECTING;
  readonly bufferedAmount = 0;
  binaryType = "arraybuffer";
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  other: End | undefined;
  readonly #later: (fire: () => void) => void;
  readonly #isLost: () => boolean;
  readonly #closeListeners: (() => void)[] = [];

  constructor(later: (fire: () => void) => void, isLost: () => boolean) {
    this.#later = later;
    this.#isLost = isLost;
  }

  addEventListener(_kind: "close", listener: () => void): void {
    this.#closeListeners.push(listener);
  }

  send(bytes: Uint8Array): void {
    const data = bytes.slice().buffer as ArrayBuffer;
    this.#later(() => {
      const { other } = this;
      if (other?.readyState === WebSocket.OPEN && !this.#isLost()) other.onmessage?.({ data });
    });
  }

  close(code = 1000, reason = ""): void {
    if (this.readyState >= WebSocket.CLOSING) return;
    this.readyState = WebSocket.CLOSING;
    this.#later(() => {
      this.ended(code, reason);
      if (!this.#isLost()) this.other?.ended(code, reason);
    });
  }

  ended(code: number, reason: string): void {
    if (this.readyState === WebSocket.CLOSED) return;
    this.readyState = WebSocket.CLOSED;
    this.onclose?.({ code, reason });
    for (const listener of this.#closeListeners) listener();
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
    headers: { "upgrade": "websocket", "sec-websocket-protocol": "other, gretun-relay-channels" },
  });
  const ends: Ends = { server: new End(later, isLost) };
  upgraded.set(request, ends);
  await server.servers.get(Number(port || 80))!(request, trace.source);
  if (ends.server.readyState !== WebSocket.OPEN) throw new Error("refused");
  [client.other, ends.server.other] = [ends.server, client];
  server.serving.addEventListener("abort", () => client.ended(1006, ""), { once: true });
  client.readyState = WebSocket.OPEN;
  return {
    protocol: ends.protocol,
    bufferedBytes: 0,
    start({ onMessage, onClosed }) {
      client.onmessage = ({ data }) => onMessage(new Uint8Array(data));
      client.onclose = ({ code, reason }) => onClosed(reason || `closed with ${code}`);
    },
    send: (bytes) => client.send(bytes),
    [Symbol.dispose]: () => client.close(),
  };
}

/** As `Deno.upgradeWebSocket`. */
export function upgradeWebSocket(
  request: Request,
  { protocol }: { protocol?: string },
): { socket: WebSocket; response: Response } {
  const ends = upgraded.get(request)!;
  ends.protocol = protocol;
  ends.server.readyState = WebSocket.OPEN;
  return { socket: ends.server as unknown as WebSocket, response: new Response() };
}
