/**
 * What this node and a peer know of each other's present run: by it a recorded ping is told from a
 * new one, and the keys of the data are made of what both have chosen at random. What a pong says
 * is new, as it answers a ping of ours; what a ping says may have been recorded.
 */
import { concatBytes, equalBytes, fromHex, toHex } from "../bytes.ts";
import type { LinkKeys } from "../dataplane/mod.ts";
import { EPOCH_LENGTH, type Extension, SESSION_LENGTH } from "../disco/mod.ts";
import type { Random } from "../edges.ts";
import { greKey } from "../gre_key.ts";
import type { DiscoKey } from "../keys.ts";
import type { Identity } from "./identity.ts";

export interface PairSessionOptions {
  /** Of this run, the same for all peers. */
  epoch: Uint8Array;
  random: Random;
  boxKey: Uint8Array<ArrayBuffer>;
  identity: Pick<Identity, "discoKey">;
  peer: DiscoKey;
  /** Whether packets carry keys. */
  hasKeys: boolean;
  /** Of the peer's link that an earlier run left, as {@link PairSession.text} gave it. */
  adopted?: string | undefined;
}

export type KeysOfSession = Promise<LinkKeys> | undefined;

export class PairSession {
  readonly #options: PairSessionOptions;
  #own: Uint8Array;
  #peers: Uint8Array | undefined;
  #peersEpoch: Uint8Array = new Uint8Array(EPOCH_LENGTH);
  #isOld = false;
  #isPingExtended = false;
  #keys: KeysOfSession;

  constructor(options: PairSessionOptions) {
    this.#options = options;
    const adopted = options.adopted ? fromHex(options.adopted) : undefined;
    this.#own = adopted?.slice(0, SESSION_LENGTH) ?? options.random(SESSION_LENGTH);
    this.#peers = adopted?.slice(SESSION_LENGTH);
  }

  /** Another promise when they are others; derived for who asks, as most that never answer need none. */
  get keys(): KeysOfSession {
    return this.#keys ??= this.#derive();
  }

  /** Undefined for keys that are of no session. */
  get text(): string | undefined {
    return this.#peers && toHex(concatBytes(this.#own, this.#peers));
  }

  /** Whether the peer's last pong was that of a program that knows nothing of this. */
  get isOld(): boolean {
    return this.#isOld;
  }

  /** To go with a ping or a pong; `echo` in place of what a pong has told last. */
  extension({ nominating = false, echo = this.#peersEpoch } = {}): Extension {
    return { nominating, epoch: this.#options.epoch, echo, session: this.#own };
  }

  /** Whether the ping to be answered has an extension: a pong is never longer than its ping. */
  get isPingExtended(): boolean {
    return this.#isPingExtended;
  }

  /** By a ping, with what came with it. Whether it was made for this run, as far as can be told. */
  pinged(extension: Extension | undefined): boolean {
    this.#isPingExtended = extension !== undefined;
    return !extension || equalBytes(extension.echo, this.#options.epoch);
  }

  /** Whether it tells of a session that no pong has told of. */
  isNews({ session }: Extension): boolean {
    return !this.#peers || !equalBytes(session, this.#peers);
  }

  /** By a pong, with what came with it. Whether the peer's run is another than was thought. */
  answered(extension: Extension | undefined): boolean {
    this.#isOld = extension === undefined;
    const isSame = extension
      ? this.#peers && equalBytes(extension.session, this.#peers)
      : !this.#peers;
    const isSameRun = !extension || equalBytes(extension.epoch, this.#peersEpoch);
    if (extension) this.#peersEpoch = extension.epoch.slice();
    if (!isSame) {
      this.#peers = extension?.session.slice();
      this.#keys = undefined;
    }
    return !isSameRun;
  }

  /** The path is made anew, and with it the keys: those of before are worth nothing then. */
  renew(): void {
    this.#own = this.#options.random(SESSION_LENGTH);
    if (this.#peers) this.#keys = undefined;
  }

  #derive(): KeysOfSession {
    const { hasKeys, boxKey, identity: { discoKey: key }, peer } = this.#options;
    if (!hasKeys) return undefined;
    const own = { key, session: this.#peers && this.#own };
    const far = { key: peer, session: this.#peers };
    return Promise.all([greKey(boxKey, far, own), greKey(boxKey, own, far)])
      .then(([ikey, okey]) => ({ kind: "gre", ikey, okey }));
  }
}
