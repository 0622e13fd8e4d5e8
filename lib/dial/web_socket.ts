/** WebSockets (RFC 6455) over {@link Dialer}; the runtime's own knows no proxy. */
import { toBase64 } from "../bytes.ts";
import type { Random } from "../edges.ts";
import { WebSocketEnd } from "../web_socket.ts";
import { acceptOf } from "../web_socket_frames.ts";
import { BufferedReader } from "../buffered_reader.ts";
import type { Dialer } from "./dialer.ts";
import { DialError } from "./errors.ts";
import { encodeRequest, readHead } from "./http_message.ts";

const MAX_MESSAGE = 1024 * 1024;

/**
 * Receives nothing before `start`. `protocol` is asked for; the server has taken it where the result has it.
 * Throws {@link DialError}, or the signal's reason.
 */
export async function openWebSocket(
  dialer: Dialer,
  url: URL,
  random: Random,
  signal: AbortSignal,
  protocol?: string,
): Promise<WebSocketEnd> {
  const { stream } = await dialer.dial(url, { allowForwarder: false }, signal);
  const close = () => stream[Symbol.dispose]();
  signal.addEventListener("abort", close, { once: true });
  try {
    const key = toBase64(random(16));
    const headers = {
      "Connection": "Upgrade",
      "Upgrade": "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": key,
      ...(protocol === undefined ? {} : { "Sec-WebSocket-Protocol": protocol }),
    };
    const target = `${url.pathname}${url.search}`;
    await stream.write(encodeRequest({ method: "GET", target, host: url.host, headers }));
    const reader = new BufferedReader(stream);
    const head = await readHead(reader);
    const isAccepted = head.headers.get("sec-websocket-accept") === await acceptOf(key);
    if (head.status !== 101 || !isAccepted) {
      throw new DialError(
        `${url.host} gives no WebSocket: ${head.status}`,
        "Check what stands between here and the server: a proxy has to let WebSockets through",
      );
    }
    return new WebSocketEnd({
      stream,
      read: () => reader.some(),
      random,
      maxMessage: MAX_MESSAGE,
      protocol: head.headers.get("sec-websocket-protocol") ?? undefined,
    });
  } catch (error) {
    close();
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", close);
  }
}
