/**
 * What this node remembers from one start to the next, as JSON in one file: the sequence number of its last
 * statement, and by the coordinator's URL its key, this node's address there, and the peers it met.
 */
import { type Ip, parseIp } from "../addr.ts";
import type { Clock, Log } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { keyBase64, type NodeKey, nodeKeyFromBase64 } from "../keys.ts";

/** What has changed is on the disk after that time: peers come and go in crowds. */
const WRITE_AFTER_MS = 5_000;

/** A file of the state directory. */
export interface KnownFile {
  readonly path: string;
  /** Undefined where there is none. */
  read(): string | undefined;
  /** Replaces it; throws what the system says. */
  write(text: string): void;
}

export interface KnownPeer {
  name: string;
  ip?: Ip;
  /** Of its last statement; absent from one that never signed any. */
  sequence?: number;
  /** When it was last listed, or heard, in wall-clock ms. */
  seenMs: number;
}

interface KnownCoordinator {
  key?: NodeKey;
  address?: Ip;
  peers: Map<NodeKey, KnownPeer>;
}

export interface KnownOptions {
  file: KnownFile;
  /** The coordinator's. */
  url: string;
  clock: Clock;
  log: Log;
}

export class Known implements Disposable {
  readonly #options: KnownOptions;
  readonly #all: { sequence: number; coordinators: Map<string, KnownCoordinator> };
  readonly #here: KnownCoordinator;
  #timer: Disposable | undefined;

  /** Throws `GretunError` for a file that is none of ours. */
  constructor(options: KnownOptions) {
    this.#options = options;
    this.#all = readFile(options.file);
    this.#here = this.#all.coordinators.get(options.url) ?? { peers: new Map() };
    this.#all.coordinators.set(options.url, this.#here);
  }

  get sequence(): number {
    return this.#all.sequence;
  }

  set sequence(sequence: number) {
    this.#all.sequence = sequence;
    this.changed();
  }

  get address(): Ip | undefined {
    return this.#here.address;
  }

  set address(address: Ip | undefined) {
    if (address === this.#here.address || address === undefined) return;
    this.#here.address = address;
    this.changed();
  }

  /** To be changed in place; then {@link changed} is to be called. */
  get peers(): Map<NodeKey, KnownPeer> {
    return this.#here.peers;
  }

  get coordinatorKey(): NodeKey | undefined {
    return this.#here.key;
  }

  /** It was there so long ago for the last time. */
  seen(key: NodeKey, agoMs: number): void {
    const peer = this.peers.get(key);
    if (!peer) return;
    peer.seenMs = this.#options.clock.wallMs() - Math.round(agoMs);
    this.changed();
  }

  /** A coordinator that was made anew gives out other addresses; the peers' names stay. */
  setCoordinatorKey(key: NodeKey): void {
    if (key === this.#here.key) return;
    if (this.#here.key !== undefined) {
      for (const peer of this.#here.peers.values()) delete peer.ip;
    }
    this.#here.key = key;
    this.#write();
  }

  changed(): void {
    this.#timer ??= this.#options.clock.timer(WRITE_AFTER_MS, () => this.#write());
  }

  [Symbol.dispose](): void {
    if (this.#timer) this.#write();
  }

  #write(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    const { file, log } = this.#options;
    try {
      file.write(fileText(this.#all));
    } catch (error) {
      log.warn("not remembered: a later start will not know who was met", {
        path: file.path,
        error: errorText(error),
      });
    }
  }
}

type Contents = { sequence: number; coordinators: Map<string, KnownCoordinator> };

function fileText({ sequence, coordinators }: Contents): string {
  const each = [...coordinators].map(([url, { key, address, peers }]) => [url, {
    ...(key ? { key: keyBase64(key) } : {}),
    ...(address ? { address } : {}),
    peers: [...peers].map(([key, peer]) => ({ key: keyBase64(key), ...peer })),
  }]);
  return JSON.stringify({ sequence, coordinators: Object.fromEntries(each) }) + "\n";
}

/** Throws `GretunError`. */
function readFile(file: KnownFile): Contents {
  const text = file.read();
  if (text === undefined) return { sequence: 0, coordinators: new Map() };
  try {
    const { sequence, coordinators } = JSON.parse(text);
    return {
      sequence: wholeNumber(sequence),
      coordinators: new Map(
        Object.entries(coordinators).map(([url, value]) => [url, coordinatorOf(value)]),
      ),
    };
  } catch (cause) {
    throw new GretunError(
      `cannot use ${file.path}: ${errorText(cause)}`,
      "Restore it from a copy, or move it away: whoever is met then is taken for who it was",
      { cause },
    );
  }
}

type Json = Record<string, unknown>;

function coordinatorOf(value: unknown): KnownCoordinator {
  const { key, address, peers } = value as Json;
  return {
    ...(key === undefined ? {} : { key: nodeKeyFromBase64(String(key)) }),
    ...(address === undefined ? {} : { address: parseIp(String(address)) }),
    peers: new Map((peers as Json[]).map(peerOf)),
  };
}

function peerOf({ key, name, ip, sequence, seenMs }: Json): [NodeKey, KnownPeer] {
  return [nodeKeyFromBase64(String(key)), {
    name: String(name),
    ...(ip === undefined ? {} : { ip: parseIp(String(ip)) }),
    ...(sequence === undefined ? {} : { sequence: wholeNumber(sequence) }),
    seenMs: wholeNumber(seenMs),
  }];
}

function wholeNumber(value: unknown): number {
  if (Number.isSafeInteger(value)) return value as number;
  throw new RangeError("not a whole number");
}
