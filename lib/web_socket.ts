/** One end of a WebSocket (RFC 6455) after its handshake, over any stream of bytes; messages are binary. */
import type { ByteStream } from "./byte_stream.ts";
import { concatBytes } from "./bytes.ts";
import type { Random } from "./edges.ts";
import { errorText } from "./errors.ts";
import { CLOSE, encodeFrame, MessageReader, OPCODE, WebSocketError } from "./web_socket_frames.ts";

/** A message, and the other end's part of closing, come within that time once they have begun. */
const PATIENCE_MS = 10_000;
/** After half of it without anything from the other end it is pinged, after all of it given up. */
const IDLE_MS = 50_000;
/** Pings are not answered while so much waits to be sent. */
const MAX_WAITING_OF_PONG = 16_384;

export interface WebSocketEvents {
  onMessage(bytes: Uint8Array<ArrayBuffer>): void;
  /** The connection has ended; called once. */
  onClosed(reason: string): void;
}

export interface WebSocketEndOptions {
  stream: ByteStream;
  /** What comes, in pieces; undefined at the end. */
  read: () => Promise<Uint8Array | undefined>;
  /** Of a client, which masks what it sends with it. */
  random?: Random;
  maxMessage: number;
  /** The one that both ends speak, if any. */
  protocol?: string | undefined;
}

export class WebSocketEnd implements Disposable {
  readonly protocol: string | undefined;
  readonly #stream: ByteStream;
  readonly #read: () => Promise<Uint8Array | undefined>;
  readonly #random: Random | undefined;
  readonly #messages: MessageReader;
  /** Frames that wait while others are being written. */
  #queue: Uint8Array[] = [];
  #writing: Promise<void> | undefined;
  #bufferedBytes = 0;
  #isClosed = false;
  /** What comes cannot be read any more. */
  #isBroken = false;
  // What sweep() has seen.
  #hasHeard = true;
  #heardMs = 0;
  #amidSinceMs: number | undefined;
  #closedMs: number | undefined;

  constructor({ stream, read, random, maxMessage, protocol }: WebSocketEndOptions) {
    this.#stream = stream;
    this.#read = read;
    this.#random = random;
    this.#messages = new MessageReader({ isMasked: random === undefined, maxMessage });
    this.protocol = protocol;
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

  /** Whether messages go out and come in. */
  get isOpen(): boolean {
    return !this.#isClosed;
  }

  /**
   * Says so to the other end, and waits until that has ended the connection: who has more to send might
   * not see why otherwise. What it sends meanwhile is dropped. Who calls this has to {@link sweep}.
   */
  close(code: number): void {
    this.#send(OPCODE.close, Uint8Array.of(code >> 8, code & 0xff));
    this.#isClosed = true;
  }

  /** Says so to the other end, unless it has stopped reading, and ends the connection. */
  [Symbol.dispose](): void {
    this.#end(CLOSE.normal);
  }

  #end(code: number): void {
    const isStuck = !this.#isClosed && this.#bufferedBytes > 0;
    this.close(code);
    const end = () => this.#stream[Symbol.dispose]();
    if (isStuck || !this.#writing) end();
    else void this.#writing.finally(end);
  }

  /**
   * Ends what does not come to its end, and what nothing comes from any more; a server calls it each few
   * seconds, by which times are prolonged.
   */
  sweep(nowMs: number): void {
    if (this.#isClosed) {
      this.#closedMs ??= nowMs;
      if (nowMs - this.#closedMs >= PATIENCE_MS) this.#stream[Symbol.dispose]();
      return;
    }
    if (this.#hasHeard) this.#heardMs = nowMs;
    this.#hasHeard = false;
    if (!this.#messages.isAmid) this.#amidSinceMs = undefined;
    else this.#amidSinceMs ??= nowMs;
    if (nowMs - (this.#amidSinceMs ?? nowMs) >= PATIENCE_MS) this.close(CLOSE.policy);
    else if (nowMs - this.#heardMs >= IDLE_MS) this.close(CLOSE.goingAway);
    else if (nowMs - this.#heardMs >= IDLE_MS / 2) this.#send(OPCODE.ping, new Uint8Array(0));
  }

  #send(opcode: number, payload: Uint8Array): void {
    if (this.#isClosed) return;
    const frame = encodeFrame(opcode, payload, this.#random?.(4));
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
    let reason: string | undefined;
    try {
      for (let bytes = await this.#read(); bytes; bytes = await this.#read()) {
        this.#hasHeard = true;
        if (!this.#isBroken) reason = this.#received(bytes, onMessage) ?? reason;
      }
    } catch (error) {
      reason ??= errorText(error);
    }
    this.#end(CLOSE.normal);
    onClosed(reason ?? `closed with ${CLOSE.abnormal}`);
  }

  /** Why it is over, once it is. */
  #received(bytes: Uint8Array, onMessage: WebSocketEvents["onMessage"]): string | undefined {
    try {
      for (const { opcode, payload } of this.#messages.push(bytes)) {
        switch (opcode) {
          case OPCODE.close:
            this.#end(CLOSE.normal);
            return closeReason(payload);
          case OPCODE.ping:
            if (this.#bufferedBytes < MAX_WAITING_OF_PONG) this.#send(OPCODE.pong, payload);
            break;
          case OPCODE.pong:
            break;
          case OPCODE.text:
            throw new WebSocketError(CLOSE.unsupported, "a message that is a text");
          default:
            this.#amidSinceMs = undefined;
            if (!this.#isClosed) onMessage(payload);
        }
      }
      return undefined;
    } catch (error) {
      if (!(error instanceof WebSocketError)) throw error;
      this.#isBroken = true;
      // A server lets the client end it.
      if (this.#random) this.#end(error.code);
      else this.close(error.code);
      return error.message;
    }
  }
}

function closeReason(payload: Uint8Array): string {
  const code = payload.length >= 2 ? payload[0]! * 256 + payload[1]! : CLOSE.none;
  const reason = new TextDecoder().decode(payload.subarray(2));
  return reason || `closed with ${code}`;
}
