/** A long line between two namespaces: packets wait in this process before they go on. */
import type { Clock } from "../edges.ts";
import { type Poller, TunDevice } from "../netlink.ts";
import type { Space } from "./space.ts";

/** Hands on packets in order, each `delayMs` after it came. */
export class DelayLine implements Disposable {
  readonly #delayMs: number;
  readonly #deliver: (packet: Uint8Array) => void;
  readonly #clock: Clock;
  readonly #waiting: { packet: Uint8Array; dueMs: number }[] = [];
  #timer: number | undefined;

  constructor(delayMs: number, deliver: (packet: Uint8Array) => void, clock: Clock) {
    this.#delayMs = delayMs;
    this.#deliver = deliver;
    this.#clock = clock;
  }

  /** Copies the packet. */
  push(packet: Uint8Array): void {
    this.#waiting.push({ packet: packet.slice(), dueMs: this.#clock.nowMs() + this.#delayMs });
    this.#arm();
  }

  /** What still waits is lost. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#waiting.length = 0;
  }

  #arm(): void {
    const first = this.#waiting[0];
    if (this.#timer !== undefined || !first) return;
    const waitMs = Math.max(0, Math.ceil(first.dueMs - this.#clock.nowMs()));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#deliverDue();
      this.#arm();
    }, waitMs);
  }

  #deliverDue(): void {
    const nowMs = this.#clock.nowMs();
    while (this.#waiting.length > 0 && this.#waiting[0]!.dueMs <= nowMs) {
      this.#deliver(this.#waiting.shift()!.packet);
    }
  }
}

export interface DelayedLinkEnd {
  space: Space;
  ifname: string;
}

/**
 * Two TUN devices and this process between them. It works while the event loop turns: what blocks
 * the loop makes the line longer.
 */
export function delayedLink(
  a: DelayedLinkEnd,
  b: DelayedLinkEnd,
  delayMs: number,
  poller: Poller,
  clock: Clock,
): Disposable {
  using stack = new DisposableStack();
  const devices: TunDevice[] = [];
  for (const [i, { space, ifname }] of [a, b].entries()) {
    const line = stack.use(
      new DelayLine(delayMs, (packet) => void devices[1 - i]!.write(packet), clock),
    );
    const open = () => TunDevice.open(ifname, poller, (packet) => line.push(packet));
    devices.push(stack.use(space.within(open)));
  }
  return stack.move();
}
