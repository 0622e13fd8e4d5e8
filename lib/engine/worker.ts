/**
 * A thread of the data path. It blocks until a device or a socket has something and never comes
 * back to its event loop: what it is told comes through a port that it looks into by itself.
 */
import { type MessagePort as NodePort, receiveMessageOnPort } from "node:worker_threads";
import { EpollWaiter } from "../linux/bulk.ts";
import { openAead } from "./aead.ts";
import { Arena } from "./arena.ts";
import { Cipher } from "./cipher.ts";
import { HeaderReader, HeaderWriter } from "./encapsulation.ts";
import { Inward } from "./inward.ts";
import { WorkerTables } from "./links.ts";
import {
  type Change,
  type Drop,
  DROPS,
  type Queue,
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

  constructor(start: WorkerStart, cipher: Cipher | undefined) {
    const { encapsulation, ownId, control, meetsStrangers } = start;
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
      ...{ arena, sum, cipher, tables: this.#tables },
      headers: new HeaderWriter(arena, encapsulation, ownId),
      nowMs: () => performance.now(),
      events: {
        onDrop,
        onTooBig: (link) => this.#post({ kind: "too-big", link }),
        onDeviceGone: (fd) => this.#waiter.forget(fd),
      },
    });
    this.#inward = new Inward({
      ...{ arena, sum, cipher, control, meetsStrangers, nowMs: () => performance.now() },
      tables: this.#tables,
      headers: this.#reader,
      events: {
        onDrop,
        onHeard: (link) => this.#shared.heard[link]!++,
        onControl: (bytes, from, socket) =>
          this.#post({ kind: "control", bytes: bytes.slice(), from: from.slice(), socket }),
        onStranger: (bytes, from) =>
          this.#post({ kind: "stranger", bytes: bytes.slice(), from: from.slice() }, "stranger"),
        onSession: ({ link, id }, from) =>
          this.#post({ kind: "session", link, id, from: from.slice() }),
      },
    });
  }

  /** Until it is told to stop. */
  run(): void {
    while (this.#takeChanges()) {
      const count = this.#waiter.wait();
      // What was said before a packet came holds for it.
      if (!this.#takeChanges()) return;
      let reads = 0;
      for (let i = 0; i < count; i++) reads += this.#serve(this.#waiter.tag(i));
      this.#shared.reads[this.#start.index]! += reads;
    }
  }

  #serve(tag: number | undefined): number {
    if (tag === undefined) return 0;
    if (tag >= IN_TAG) {
      const socket = this.#tables.sockets[tag - IN_TAG];
      return socket ? this.#inward.serve(socket) : 0;
    }
    const link = this.#tables.links[tag];
    return link ? this.#outward.serve(link) : 0;
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

  #post(report: Report, queue: Queue = "control"): void {
    if (this.#shared.take(queue)) self.postMessage(report);
    else this.#count("control-flood");
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

self.onmessage = async ({ data }) => {
  self.onmessage = null;
  try {
    const cipher = data.encapsulation === "sealed" ? new Cipher(await openAead()) : undefined;
    const path = new Path(data, cipher);
    path.run();
    self.postMessage({ kind: "stopped" });
  } catch (error) {
    self.postMessage({ kind: "failed", reason: String(error) });
  }
  self.close();
};
