/**
 * A thread of the data path. It blocks until a device or a socket has something and never comes
 * back to its event loop: what it is told comes through a port that it looks into by itself.
 */
import { type MessagePort as NodePort, receiveMessageOnPort } from "node:worker_threads";
import { EpollWaiter } from "../linux/bulk.ts";
import { Arena } from "./arena.ts";
import { HeaderReader, HeaderWriter } from "./encapsulation.ts";
import { Inward } from "./inward.ts";
import { WorkerTables } from "./links.ts";
import {
  type Change,
  type Drop,
  DROPS,
  MAX_LINKS,
  MAX_PENDING,
  type Report,
  Shared,
  type WorkerStart,
} from "./messages.ts";
import { Outward } from "./outward.ts";
import { plainSum, type Sum, vectorSum } from "./sum.ts";
import { IN_TAG } from "./tags.ts";

const ARENA_PAGES = 32;

declare const self: {
  onmessage: ((event: MessageEvent<WorkerStart>) => void) | null;
  postMessage(report: Report): void;
  close(): void;
};

class Path {
  readonly #start: WorkerStart;
  readonly #shared: Shared;
  readonly #waiter: EpollWaiter;
  readonly #tables: WorkerTables;
  readonly #reader: HeaderReader;
  readonly #outward: Outward;
  readonly #inward: Inward;
  /** The same thing, by Node's name for it. */
  readonly #changes: NodePort;
  #version = 0;

  constructor(start: WorkerStart) {
    const { encapsulation, ownId, control } = start;
    this.#start = start;
    this.#changes = start.changes as unknown as NodePort;
    this.#shared = new Shared(start.shared);
    this.#waiter = new EpollWaiter(start.epoll);
    const memory = new WebAssembly.Memory({ initial: ARENA_PAGES, maximum: ARENA_PAGES });
    const arena = Arena.over(memory);
    const sum = bestSum(arena, memory);
    this.#tables = new WorkerTables(arena, encapsulation);
    this.#reader = new HeaderReader(arena, encapsulation);
    const onDrop = (reason: Drop) => this.#count(reason);
    this.#outward = new Outward({
      ...{ arena, sum, tables: this.#tables },
      headers: new HeaderWriter(arena, encapsulation, ownId),
      nowMs: () => performance.now(),
      events: {
        onDrop,
        onTooBig: (link) => this.#post({ kind: "too-big", link }),
        onDeviceGone: (fd) => this.#waiter.forget(fd),
      },
    });
    this.#inward = new Inward({
      ...{ arena, sum, control },
      tables: this.#tables,
      headers: this.#reader,
      events: {
        onDrop,
        onHeard: (link) => {
          if (link < MAX_LINKS) this.#shared.heard[link]!++;
        },
        onControl: (bytes, from, socket) =>
          this.#post({ kind: "control", bytes: bytes.slice(), from: from.slice(), socket }),
      },
    });
  }

  /** Until it is told to stop. */
  run(): void {
    while (this.#takeChanges()) {
      const count = this.#waiter.wait();
      // What was said before a packet came holds for it.
      if (!this.#takeChanges()) return;
      for (let i = 0; i < count; i++) this.#serve(this.#waiter.tag(i));
    }
  }

  #serve(tag: number | undefined): void {
    if (tag === undefined) return;
    if (tag >= IN_TAG) {
      const socket = this.#tables.sockets[tag - IN_TAG];
      if (socket) this.#inward.serve(socket);
    } else {
      const link = this.#tables.links[tag];
      if (link) this.#outward.serve(link);
    }
  }

  /** False when there are no more rounds. */
  #takeChanges(): boolean {
    const version = Atomics.load(this.#shared.versions, 0);
    if (version === this.#version) return true;
    let message;
    while ((message = receiveMessageOnPort(this.#changes))) {
      const change = message.message as Change;
      if (change.kind === "stop") return false;
      this.#tables.apply(change);
    }
    this.#reader.setLinks(this.#tables.specs());
    this.#version = version;
    Atomics.store(this.#shared.versions, 1 + this.#start.index, version);
    return true;
  }

  #count(reason: Drop): void {
    this.#shared.drops[this.#start.index * DROPS.length + DROPS.indexOf(reason)]!++;
  }

  #post(report: Report): void {
    if (Atomics.load(this.#shared.pending, 0) >= MAX_PENDING) return this.#count("control-flood");
    Atomics.add(this.#shared.pending, 0, 1);
    self.postMessage(report);
  }
}

function bestSum(arena: Arena, memory: WebAssembly.Memory): Sum {
  try {
    return vectorSum(memory);
  } catch (error) {
    if (error instanceof WebAssembly.CompileError) return plainSum(arena);
    throw error;
  }
}

self.onmessage = ({ data }) => {
  self.onmessage = null;
  try {
    const path = new Path(data);
    path.run();
    self.postMessage({ kind: "stopped" });
  } catch (error) {
    self.postMessage({ kind: "failed", reason: String(error) });
  }
  self.close();
};
