/**
 * Whether data gets through a link whose path works: a peer's address in the overlay is pinged once
 * the link is set, when data is sent that nothing answers, and now and then while there is data. A
 * firewall of either host may drop what comes out of the tunnel, and nothing else would tell.
 */
import type { Ip } from "../addr.ts";
import type { Clock, Log } from "../edges.ts";
import { errorText } from "../errors.ts";
import type { NodeKey } from "../keys.ts";
import { firstToSucceed } from "../stagger.ts";
import { peerFields } from "./words.ts";

/** Both ends have their links by then. */
const FIRST_MS = 1_000;
/** All of them unanswered, and as many on the path answered: a line that loses packets is no firewall. */
const PINGS = 5;
/** A ping does not wait for the verdict on the one before: somebody may be looking for the cause. */
const SPACING_MS = 1_000;
const AGAIN_MS = 60_000;
/** On a slower path pings in the tunnel may come too late, and no firewall drop them. */
const PROMPT_MS = 1_000;

export interface InnerLink {
  ip: Ip;
  ifname: string;
}

/** `name`: the peer's. */
export type CheckedLink = InnerLink & { name: string };

export interface InnerChecksOptions {
  /** The round trip by that link, if it takes 3 s at most; rejects where none can be asked. */
  ping: (link: InnerLink) => Promise<number | undefined>;
  /** The round trip by the path that the link uses; undefined where nothing answers now. */
  pingPath: (peer: NodeKey) => Promise<number | undefined>;
  clock: Clock;
  log: Log;
}

export class InnerChecks implements Disposable {
  readonly #options: InnerChecksOptions;
  readonly #running = new Map<NodeKey, AbortController>();
  readonly #silent = new Set<NodeKey>();
  /** When a ping was answered last. */
  readonly #answeredMs = new Map<NodeKey, number>();

  constructor(options: InnerChecksOptions) {
    this.#options = options;
  }

  [Symbol.dispose](): void {
    for (const peer of [...this.#running.keys()]) this.stop(peer);
  }

  /** Its path works, but nothing comes back out of the tunnel. */
  isSilent(peer: NodeKey): boolean {
    return this.#silent.has(peer);
  }

  /** The peer has this link now. */
  start(peer: NodeKey, link: CheckedLink): void {
    this.#running.get(peer)?.abort();
    this.#begin(peer, link, FIRST_MS);
  }

  /** The link is in use. False: it was asked a moment ago, or is just being asked. */
  doubt(peer: NodeKey, link: CheckedLink): boolean {
    const answeredMs = this.#answeredMs.get(peer) ?? -Infinity;
    if (this.#running.has(peer) || this.#options.clock.nowMs() < answeredMs + AGAIN_MS) {
      return false;
    }
    this.#begin(peer, link, 0);
    return true;
  }

  #begin(peer: NodeKey, link: CheckedLink, waitMs: number): void {
    const controller = new AbortController();
    this.#running.set(peer, controller);
    void this.#check(peer, link, { waitMs, signal: controller.signal }).then(() => {
      if (this.#running.get(peer) === controller) this.#running.delete(peer);
    });
  }

  stop(peer: NodeKey): void {
    this.#running.get(peer)?.abort();
    this.#running.delete(peer);
    this.#silent.delete(peer);
    this.#answeredMs.delete(peer);
  }

  async #check(
    peer: NodeKey,
    link: CheckedLink,
    { waitMs: firstMs, signal }: { waitMs: number; signal: AbortSignal },
  ): Promise<void> {
    const { clock, log } = this.#options;
    for (let waitMs = firstMs; !signal.aborted; waitMs = AGAIN_MS) {
      await clock.sleep(waitMs, signal).catch(() => {});
      if (signal.aborted) return;
      try {
        const isAnswered = await this.#isAnswered(link, signal);
        if (signal.aborted || !(isAnswered || await this.#isPrompt(peer)) || signal.aborted) {
          continue;
        }
        this.#note(peer, link, isAnswered);
        if (isAnswered) return;
      } catch (error) {
        log.debug("tunnel not pinged", {
          ...peerFields({ name: link.name, nodeKey: peer }),
          error: errorText(error),
        });
      }
    }
  }

  async #isAnswered(link: InnerLink, signal: AbortSignal): Promise<boolean> {
    const { clock, ping } = this.#options;
    const unanswered = new Error("no answer");
    const attempt = async () => {
      if (await ping(link) === undefined) throw unanswered;
    };
    try {
      const pings = new Array(PINGS).fill(link);
      await firstToSucceed(pings, attempt, { delayMs: SPACING_MS, clock, signal });
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const failed = (error as AggregateError).errors.find((one) => one !== unanswered);
      if (failed) throw failed;
      return false;
    }
  }

  /** Asked after the pings: a path that was dying meanwhile does not answer. */
  async #isPrompt(peer: NodeKey): Promise<boolean> {
    for (let i = 0; i < PINGS; i++) {
      if ((await this.#options.pingPath(peer) ?? Infinity) > PROMPT_MS) return false;
    }
    return true;
  }

  #note(peer: NodeKey, { name, ip, ifname }: CheckedLink, isAnswered: boolean): void {
    const { clock, log } = this.#options;
    const fields = { ...peerFields({ name, nodeKey: peer }), tunnel_ip: ip, ifname };
    if (isAnswered) this.#answeredMs.set(peer, clock.nowMs());
    if (!isAnswered && !this.#silent.has(peer)) {
      this.#silent.add(peer);
      log.warn("path works, but pings in the tunnel are not answered", {
        ...fields,
        hint: `A firewall of this host or of the peer drops them, look for ${ip} and ${ifname}`,
      });
    } else if (isAnswered && this.#silent.delete(peer)) {
      log.info("pings in the tunnel are answered", fields);
    }
  }
}
