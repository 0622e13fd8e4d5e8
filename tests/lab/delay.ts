/** A long line between two namespaces: packets wait in this process before they go on. */
import type { Clock } from "../../lib/edges.ts";
import type { Poller } from "../../lib/linux/mod.ts";
import type { Space } from "../../lib/lab/mod.ts";
import { TunDevice } from "./tun_device.ts";

export interface LineQuality {
  /** Every packet is on the way for so long: a round trip takes twice that. */
  delayMs?: number;
  /** The share of packets that are lost, from 0 to 1. */
  lossRate?: number;
}

/** Hands on packets in order, each `delayMs` after it came, but for those that are lost. */
export class DelayLine implements Disposable {
  readonly #delayMs: number;
  readonly #lossRate: number;
  readonly #deliver: (packet: Uint8Array) => void;
  readonly #clock: Clock;
  readonly #waiting: { packet: Uint8Array; dueMs: number }[] = [];
  #timer: number | undefined;

  constructor(
    { delayMs = 0, lossRate = 0 }: LineQuality,
    deliver: (packet: Uint8Array) => void,
    clock: Clock,
  ) {
    this.#delayMs = delayMs;
    this.#lossRate = lossRate;
    this.#deliver = deliver;
    this.#clock = clock;
  }

  /** Copies the packet. */
  push(packet: Uint8Array): void {
    if (Math.random() < this.#lossRate) return;
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
  quality: LineQuality,
  poller: Poller,
  clock: Clock,
): Disposable {
  using stack = new DisposableStack();
  const devices: TunDevice[] = [];
  for (const [i, { space, ifname }] of [a, b].entries()) {
    const line = stack.use(
      new DelayLine(quality, (packet) => void devices[1 - i]!.write(packet), clock),
    );
    const open = () => TunDevice.open(ifname, poller, (packet) => line.push(packet));
    devices.push(stack.use(space.within(open)));
  }
  return stack.move();
}
