/** Keeps from links what this host cannot spare, and says what that is. */
import type { PeerRecord } from "../coord/api.ts";
import type { Clock, Log } from "../edges.ts";
import type { NodeKey } from "../keys.ts";
import {
  type Collision,
  COLLISION_HINT,
  type HostView,
  type Inner,
  type NeededAddress,
  readHostView,
  withoutCollisions,
} from "../links/mod.ts";
import type { HostViewOptions } from "../links/mod.ts";
import { peerFields } from "./words.ts";

/** Links of many peers are set at once, and a look at the host costs a few dumps. */
const VIEW_MS = 1_000;

export interface CollisionsOptions extends HostViewOptions {
  /** What has to be reached as it is, besides gateways and resolvers. */
  needed: () => readonly NeededAddress[];
  clock: Clock;
  log: Log;
  onChange: (count: number) => void;
}

interface Known {
  wanted: Inner;
  collisions: readonly Collision[];
}

type NamedPeer = Pick<PeerRecord, "name" | "nodeKey">;

export class Collisions {
  readonly #options: CollisionsOptions;
  /** By peer, as it was last told. */
  readonly #known = new Map<NodeKey, Known>();
  #view: HostView | undefined;
  #viewedMs = -Infinity;

  constructor(options: CollisionsOptions) {
    this.#options = options;
  }

  /** What of it can be set now. */
  admit(peer: NamedPeer, wanted: Inner): Inner {
    const { nodeKey } = peer;
    const { inner, collisions } = withoutCollisions(wanted, this.#host());
    this.#tell(peer, this.#known.get(nodeKey)?.collisions ?? [], collisions);
    this.#known.set(nodeKey, { wanted, collisions });
    this.#options.onChange(this.#count());
    return inner;
  }

  of(peer: NodeKey): readonly Collision[] {
    return this.#known.get(peer)?.collisions ?? [];
  }

  /** Of all peers, for others to read. */
  get texts(): string[] {
    const all = [...this.#known.values()].flatMap(({ collisions }) => collisions);
    return [...new Set(all.map(({ wanted, found }) => `${wanted} collides with ${found}`))].sort();
  }

  forget(peer: NodeKey): void {
    if (this.#known.delete(peer)) this.#options.onChange(this.#count());
  }

  /** After this host's network changed: peers of whose links more or less can be set now. */
  changed(): NodeKey[] {
    this.#view = undefined;
    const host = this.#host();
    return [...this.#known].flatMap(([peer, { wanted, collisions }]) =>
      textOf(withoutCollisions(wanted, host).collisions) === textOf(collisions) ? [] : [peer]
    );
  }

  #host(): HostView {
    const { clock, needed } = this.#options;
    const nowMs = clock.nowMs();
    if (!this.#view || nowMs - this.#viewedMs >= VIEW_MS) {
      this.#view = readHostView(this.#options);
      this.#viewedMs = nowMs;
    }
    return { ...this.#view, needed: [...this.#view.needed, ...needed()] };
  }

  #tell(peer: NamedPeer, before: readonly Collision[], now: readonly Collision[]): void {
    const { log } = this.#options;
    const fields = ({ wanted, found }: Collision) => ({
      ...peerFields(peer),
      address: wanted,
      with: found,
    });
    const isIn = (list: readonly Collision[]) => ({ wanted, found }: Collision) =>
      list.some((other) => other.wanted === wanted && other.found === found);
    for (const collision of now.filter((c) => !isIn(before)(c))) {
      log.warn("address collides, not set", { ...fields(collision), hint: COLLISION_HINT });
    }
    for (const collision of before.filter((c) => !isIn(now)(c))) {
      log.info("address collides no more", fields(collision));
    }
  }

  #count(): number {
    return [...this.#known.values()].reduce((sum, { collisions }) => sum + collisions.length, 0);
  }
}

const textOf = (collisions: readonly Collision[]) =>
  collisions.map(({ wanted, found }) => `${wanted} ${found}`).join();
