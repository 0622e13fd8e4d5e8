/** A WebSocket's client end (RFC 6455) over {@link Dialer}; the runtime's own knows no proxy. */
import type { ByteStream } from "../byte_stream.ts";
import { concatBytes, toBase64 } from "../bytes.ts";
import type { Random } from "../edges.ts";
import { errorText } from "../errors.ts";
import { BufferedReader } from "./buffered_reader.ts";
import type { Dialer } from "./dialer.ts";
import { DialError } from "./errors.ts";
import { encodeRequest, readHead } from "./http_message.ts";

/** Section 1.3. */
const ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
const FINAL = 0x80;
const MASKED = 0x80;
const MAX_MESSAGE = 1024 * 1024;
const NO_STATUS = 1005;
const ABNORMAL = 1006;
const PROTOCOL_ERROR = 1002;

export interface WebSocketEvents {
  onMessage(bytes: Uint8Array<ArrayBuffer>): void;
  /** It has ended by itself; called once. */
  onClosed(reason: string): void;
}

/**
 * Receives nothing before `start`. `protocol` is asked for; whether the server takes it is in the client.
 * Throws {@link DialError}, or the signal's reason.
 */
export async function openWebSocket(
  dialer: Dialer,
  url: URL,
  random: Random,
  signal: AbortSignal,
  protocol?: string,
): Promise<WebSocketClient> {
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
    const taken = head.headers.get("sec-websocket-protocol") ?? undefined;
    return new WebSocketClient({ stream, reader, random, protocol: taken });
  } catch (error) {
    close();
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", close);
  }
}

async function acceptOf(key: string): Promise<string> {
  const bytes = new TextEncoder().encode(key + ACCEPT_GUID);
  return toBase64(new Uint8Array(await crypto.subtle.digest("SHA-1", bytes)));
}

interface Frame {
  isFinal: boolean;
  opcode: number;
  payload: Uint8Array;
}

interface WebSocketClientOptions {
  stream: ByteStream;
  reader: BufferedReader;
  random: Random;
  protocol: string | undefined;
}

export class WebSocketClient implements Disposable {
  /** The one that the server has taken, if any. */
  readonly protocol: string | undefined;
  readonly #stream: ByteStream;
  readonly #reader: BufferedReader;
  readonly #random: Random;
  /** Frames that wait while others are being written. */
  #queue: Uint8Array[] = [];
  #writing: Promise<void> | undefined;
  #bufferedBytes = 0;
  #isClosed = false;

  constructor(options: WebSocketClientOptions) {
    this.#stream = options.stream;
    this.#reader = options.reader;
    this.#random = options.random;
    this.protocol = options.protocol;
  }

  /** To be called once. */
  start(events: WebSocketEvents): void {
    void this.#receive(events);
  }

  /** What waits to be sent. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** One binary message; dropped when it is closed. */
  send(bytes: Uint8Array): void {
    this.#send(OPCODE.binary, bytes);
  }

  /** Says so to the other side, unless it has stopped reading. */
  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    const isStuck = this.#bufferedBytes > 0;
    this.#send(OPCODE.close, Uint8Array.of(0x03, 0xe8));
    this.#isClosed = true;
    if (isStuck) this.#stream[Symbol.dispose]();
    else void this.#writing?.finally(() => this.#stream[Symbol.dispose]());
  }

  #send(opcode: number, payload: Uint8Array): void {
    if (this.#isClosed) return;
    const frame = encodeFrame(opcode, payload, this.#random(4));
    this.#bufferedBytes += frame.length;
    this.#queue.push(frame);
    this.#writing ??= this.#writeAll();
  }

  /** What has come together meanwhile goes out in one piece. */
  async #writeAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const bytes = concatBytes(...this.#queue.splice(0));
      await this.#stream.write(bytes).catch(() => {}); // whoever receives sees the end
      this.#bufferedBytes -= bytes.length;
    }
    this.#writing = undefined;
  }

  async #receive({ onMessage, onClosed }: WebSocketEvents): Promise<void> {
    let reason: string;
    try {
      reason = await this.#receiveAll(onMessage);
    } catch (error) {
      reason = errorText(error) || `closed with ${ABNORMAL}`;
    }
    if (this.#isClosed) return;
    this[Symbol.dispose]();
    onClosed(reason);
  }

  /** Until the other side closes; why it does. */
  async #receiveAll(onMessage: WebSocketEvents["onMessage"]): Promise<string> {
    let parts: Uint8Array[] = [];
    while (true) {
      const { isFinal, opcode, payload } = await readFrame(this.#reader);
      switch (opcode) {
        case OPCODE.close:
          return closeReason(payload);
        case OPCODE.ping:
          this.#send(OPCODE.pong, payload);
          break;
        case OPCODE.pong:
          break;
        default:
          parts.push(payload);
          if (parts.reduce((sum, { length }) => sum + length, 0) > MAX_MESSAGE) {
            throw new RangeError(`closed with ${PROTOCOL_ERROR}: a message that is too long`);
          }
          if (!isFinal) break;
          if (!this.#isClosed) onMessage(concatBytes(...parts));
          parts = [];
      }
    }
  }
}

function closeReason(payload: Uint8Array): string {
  const code = payload.length >= 2 ? payload[0]! * 256 + payload[1]! : NO_STATUS;
  const reason = new TextDecoder().decode(payload.subarray(2));
  return reason || `closed with ${code}`;
}

/** Section 5.2; what a client sends is masked. */
export function encodeFrame(
  opcode: number,
  payload: Uint8Array,
  mask: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const frame = new Uint8Array(2 + extended + 4 + length);
  const view = new DataView(frame.buffer);
  frame[0] = FINAL | opcode;
  frame[1] = MASKED | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) view.setUint16(2, length);
  if (extended === 8) view.setBigUint64(2, BigInt(length));
  frame.set(mask, 2 + extended);
  const start = 6 + extended;
  for (let i = 0; i < length; i++) frame[start + i] = payload[i]! ^ mask[i & 3]!;
  return frame;
}

async function readFrame(reader: BufferedReader): Promise<Frame> {
  const [first, second] = await reader.exactly(2) as unknown as [number, number];
  const short = second & 0x7f;
  let length = short;
  if (short >= 126) {
    const bytes = await reader.exactly(short === 126 ? 2 : 8);
    length = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
  }
  if (second & MASKED || length > MAX_MESSAGE) {
    throw new RangeError(`closed with ${PROTOCOL_ERROR}: a frame that no server sends`);
  }
  return {
    isFinal: (first & FINAL) !== 0,
    opcode: first & 0x0f,
    payload: await reader.exactly(length),
  };
}
