/** A UDP socket of one family with a STUN client on it. */
import { type Endpoint, type Family, parseIp } from "../addr.ts";
import { systemClock, systemRandom } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { StunClient } from "../stun/mod.ts";

export class StunSocket implements Disposable {
  readonly client: StunClient;
  /** Told of what is no answer of a STUN server. */
  onOther: (bytes: Uint8Array) => void = () => {};
  readonly #socket: Deno.DatagramConn;

  /** `port` 0 takes a free one. Throws {@link GretunError}. */
  constructor(family: Family, port = 0) {
    const hostname = family === 4 ? "0.0.0.0" : "::";
    try {
      this.#socket = Deno.listenDatagram({ transport: "udp", hostname, port });
    } catch (error) {
      throw new GretunError(
        `cannot open ${port === 0 ? "a UDP port" : `UDP port ${port}`}: ${errorText(error)}`,
        "Choose another --port, or leave it out to get a free one",
        { cause: error },
      );
    }
    const send = (bytes: Uint8Array, to: Endpoint) => this.send(bytes, to);
    this.client = new StunClient({ send, clock: systemClock, random: systemRandom });
    void this.#receive();
  }

  get port(): number {
    return (this.#socket.addr as Deno.NetAddr).port;
  }

  /** What cannot be sent is lost, like any other datagram on the way. */
  send(bytes: Uint8Array, { ip, port }: Endpoint): void {
    this.#socket.send(bytes, { transport: "udp", hostname: ip, port }).catch(() => {});
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  async #receive(): Promise<void> {
    for await (const [bytes, address] of this.#socket) {
      const { hostname, port } = address as Deno.NetAddr;
      const isAnswer = this.client.handle(bytes, { ip: parseIp(hostname), port });
      if (!isAnswer) this.onOther(bytes);
    }
  }
}
