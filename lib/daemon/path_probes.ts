/** Looks how large packets the paths to peers carry; the policy is `peer/path_mtu.ts`. */
import { familyOf, formatEndpoint } from "../addr.ts";
import type { DataPlane } from "../dataplane/mod.ts";
import type { Clock, Log } from "../edges.ts";
import { MIN_MTU } from "../links/mod.ts";
import {
  equalPaths,
  isPathMtuDue,
  newPathMtu,
  nextPathMtuMs,
  type PathAddress,
  type PathMtuEvent,
  type Peer,
  type Probe,
  stepPathMtu,
  UNANSWERED,
} from "../peer/mod.ts";
import type { PingOptions } from "./effects.ts";
import type { Entry } from "./entry.ts";
import type { ProbedPath } from "./probed_path.ts";
import { peerFields } from "./words.ts";

/** A path that lasts is looked at: in the first moments a better one may take its place. */
const SETTLE_MS = 1_000;
/** Headers of IP and UDP; and what every path has to carry (RFC 791, RFC 8200). */
const OUTER = {
  4: { headerBytes: 28, leastMtu: MIN_MTU },
  6: { headerBytes: 48, leastMtu: 1280 },
} as const;

export interface PathProbesOptions {
  plane: DataPlane;
  clock: Clock;
  log: Log;
  ping: (entry: Entry, to: PathAddress, options: PingOptions) => void;
  /** The path of the peer's link carries another size than was known. */
  onChange: (entry: Entry) => void;
  closed: AbortSignal;
}

export class PathProbes {
  readonly #options: PathProbesOptions;

  constructor(options: PathProbesOptions) {
    this.#options = options;
  }

  /** A link of an earlier run goes there, and its packets were no larger. */
  adopt(entry: Entry, endpoint: PathAddress, pathMtu: number): void {
    entry.probed = { endpoint, state: newPathMtu(leastTo(endpoint), pathMtu), isUsed: false };
  }

  /** The state of the peer may be another one. */
  look(entry: Entry): void {
    const endpoint = trustedPath(entry.peer);
    const { probed } = entry;
    if (!endpoint) {
      if (probed) this.#rest(probed);
    } else if (!probed || !equalPaths(probed.endpoint, endpoint)) {
      if (probed) this.#rest(probed);
      entry.probed = { endpoint, state: newPathMtu(leastTo(endpoint)), isUsed: false };
      this.#settle(entry, entry.probed);
    } else if (!probed.timer && !probed.isUsed) {
      this.#settle(entry, probed);
    }
  }

  #settle(entry: Entry, probed: ProbedPath): void {
    if (this.#options.closed.aborted) return;
    probed.timer = this.#options.clock.timer(SETTLE_MS, () => {
      probed.isUsed = true;
      this.again(entry);
    });
  }

  /** What the path was known for may be so no more. */
  again(entry: Entry): void {
    this.#ask(entry, (widest, nowMs) => ({ kind: "look", nowMs, widest }));
  }

  /** Data went out by the link; `isSilent`: and none came back. */
  used(entry: Entry, isSilent: boolean): void {
    const { probed } = entry;
    const isDue = probed && isPathMtuDue(probed.state, this.#options.clock.nowMs(), isSilent);
    if (!isDue) return;
    this.#ask(entry, (widest, nowMs) => ({ kind: "use", nowMs, widest, isSilent }));
  }

  /** Routes of this host are others now. */
  rerouted(entry: Entry): void {
    const widest = this.#options.plane.routeMtu(entry.record.nodeKey);
    if (widest !== entry.probed?.state.widest) this.again(entry);
  }

  forget(entry: Entry): void {
    entry.probed?.timer?.[Symbol.dispose]();
    delete entry.probed;
  }

  #ask(entry: Entry, event: (widest: number, nowMs: number) => PathMtuEvent): void {
    const { probed } = entry;
    if (!probed?.isUsed) return;
    const widest = this.#options.plane.routeMtu(entry.record.nodeKey);
    if (widest !== undefined) this.#step(entry, probed, event(widest, this.#options.clock.nowMs()));
  }

  #rest(probed: ProbedPath): void {
    probed.isUsed = false;
    probed.timer?.[Symbol.dispose]();
    delete probed.timer;
    const stop = { kind: "stop", nowMs: this.#options.clock.nowMs() } as const;
    [probed.state] = stepPathMtu(probed.state, stop);
  }

  #step(entry: Entry, probed: ProbedPath, event: PathMtuEvent): void {
    const before = probed.state;
    const [state, probes] = stepPathMtu(before, event);
    probed.state = state;
    if (state.limit !== before.limit) this.#options.onChange(entry);
    if (!state.search) this.#tell(entry, probed);
    for (const probe of probes) this.#send(entry, probed, probe);
    this.#arm(entry, probed);
  }

  #send(entry: Entry, probed: ProbedPath, { salvo, size }: Probe): void {
    const { endpoint } = probed;
    const { headerBytes } = OUTER[familyOf(endpoint.ip)];
    this.#options.ping(entry, endpoint, {
      ...(size === undefined ? {} : { padTo: size - headerBytes }),
      onPong: () => {
        if (entry.probed !== probed || !probed.isUsed) return;
        const nowMs = this.#options.clock.nowMs();
        const of = size === undefined ? {} : { size };
        this.#step(entry, probed, { kind: "pong", nowMs, salvo, ...of });
      },
    });
  }

  #tell(entry: Entry, probed: ProbedPath): void {
    const { endpoint, state: { limit, widest } } = probed;
    if (limit === probed.told) return;
    if (limit === undefined) delete probed.told;
    else probed.told = limit;
    this.#options.log.info(
      limit === undefined
        ? "path carries what its route says"
        : "path carries less than its route says",
      {
        ...peerFields(entry.record),
        endpoint: formatEndpoint(endpoint),
        path_mtu: limit ?? widest,
        route_mtu: widest,
        mtu: entry.mtu,
      },
    );
  }

  #arm(entry: Entry, probed: ProbedPath): void {
    probed.timer?.[Symbol.dispose]();
    delete probed.timer;
    const { clock, closed } = this.#options;
    const dueMs = nextPathMtuMs(probed.state);
    if (dueMs === Infinity || entry.probed !== probed || closed.aborted) return;
    const waitMs = Math.max(0, Math.ceil(dueMs - clock.nowMs()));
    probed.timer = clock.timer(
      waitMs,
      () => this.#step(entry, probed, { kind: "tick", nowMs: clock.nowMs() }),
    );
  }
}

function leastTo({ ip }: PathAddress): number {
  return OUTER[familyOf(ip)].leastMtu;
}

/** Where data goes, if pings are answered there. */
function trustedPath({ path, link }: Peer): PathAddress | undefined {
  if (!path || path.dead || path.pongMs === UNANSWERED || link.kind !== "set") return undefined;
  return equalPaths(link.endpoint, path.endpoint) ? path.endpoint : undefined;
}
