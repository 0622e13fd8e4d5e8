/** STUN from extra ports of the data plane: what mappings the NAT makes for others than the main one. */
import type { Endpoint } from "../../addr.ts";
import type { DataPlane, ExtraPort } from "../../dataplane/mod.ts";
import type { Clock, Random } from "../../edges.ts";
import { StunClient } from "../../stun/mod.ts";

/** An open port that can ask STUN servers. */
export interface StunPort extends ExtraPort {
  readonly stun: StunClient;
}

export class ExtraStun {
  readonly #options: { plane: DataPlane; clock: Clock; random: Random };
  readonly #open = new Map<number, StunClient>();

  constructor(options: { plane: DataPlane; clock: Clock; random: Random }) {
    this.#options = options;
  }

  /** Throws `SystemError`. */
  openPort(): StunPort {
    const { plane, clock, random } = this.#options;
    const extra = plane.openPort();
    const { port, send } = extra;
    const stun = new StunClient({ send, clock, random });
    this.#open.set(port, stun);
    return {
      port,
      send,
      stun,
      [Symbol.dispose]: () => {
        this.#open.delete(port);
        extra[Symbol.dispose]();
      },
    };
  }

  /** To be given what arrives on extra ports. */
  handle(bytes: Uint8Array, from: Endpoint, localPort: number): void {
    this.#open.get(localPort)?.handle(bytes, from);
  }
}
