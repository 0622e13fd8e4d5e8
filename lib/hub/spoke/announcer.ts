/**
 * For protocols whose hub is told who we are and need not answer: the link is there from the start; a
 * packet that says who we are goes out at the start, after each change of address, and as often as a
 * keepalive is asked for.
 */
import { Alarm } from "../../alarm.ts";
import type { SpokeCore } from "./spoke_core.ts";

/** A link that cannot be set (no route yet) is tried again. */
const RETRY_MS = 2_000;
/** Names are looked up again once in so many keepalives. */
const LOOK_UP_EVERY = 8;

export class Announcer implements Disposable {
  /** The link is set. */
  isSet = false;
  /** How often we have said who we are. */
  count = 0;
  readonly #core: SpokeCore;
  readonly #announce: () => void;
  readonly #next: Alarm;

  constructor(core: SpokeCore, announce: () => void) {
    this.#core = core;
    this.#announce = announce;
    this.#next = new Alarm(core.edges.clock, () => this.#again());
  }

  /** The link, then the packet, then both again when it is time. */
  announce(): void {
    const { options: { address, hubAddress, keepaliveMs }, edges: { clock } } = this.#core;
    const addresses = address && hubAddress ? { local: address, peer: hubAddress } : {};
    this.isSet = this.#core.setLink(addresses);
    if (this.isSet) {
      this.count++;
      this.#announce();
    }
    const waitMs = this.isSet ? keepaliveMs || Infinity : RETRY_MS;
    this.#next.set(clock.nowMs() + waitMs);
  }

  #again(): void {
    if (this.count % LOOK_UP_EVERY === LOOK_UP_EVERY - 1) void this.#core.lookUpHub(false);
    this.announce();
  }

  [Symbol.dispose](): void {
    this.#next[Symbol.dispose]();
  }
}
