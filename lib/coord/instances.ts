/**
 * Which run of its program a node's key is used by. Machines that were cloned have one key, and two
 * of them make links swing to and fro. Pure: time is an argument.
 */
import type { NodeKey } from "../keys.ts";
import { LEASE_MS } from "./nodes.ts";

/** A run that was heard so recently may be there without holding a call. */
const RECENT_MS = 1_000;
/** The one that was there first is told of the other for so long after that last called. */
const TOLD_MS = 60_000;

interface Run {
  instance: string;
  source: string;
  seenMs: number;
  /** How many it has made. */
  calls: number;
  rival?: { source: string; seenMs: number };
}

export class Instances {
  readonly #runs = new Map<NodeKey, Run>();

  /** Notes a call. False: another run has the key, which is left as it is. */
  heard(node: NodeKey, instance: string, source: string, nowMs: number): boolean {
    const run = this.#runs.get(node);
    if (run && run.instance !== instance) return false;
    this.#runs.set(node, { ...run, instance, source, seenMs: nowMs, calls: (run?.calls ?? 0) + 1 });
    return true;
  }

  /** The run that has the key by now. */
  current(node: NodeKey): Readonly<Run> | undefined {
    return this.#runs.get(node);
  }

  /** Whether it may be there still. From where the next one comes it may have been restarted. */
  isRecent(node: NodeKey, source: string, nowMs: number): boolean {
    const run = this.#runs.get(node);
    return run !== undefined && run.source !== source && nowMs - run.seenMs <= RECENT_MS;
  }

  /** The other one is not there any more: the next that is heard has the key. */
  forget(node: NodeKey): void {
    this.#runs.delete(node);
  }

  /** Both are there. Whether that is news. */
  rivals(node: NodeKey, source: string, nowMs: number): boolean {
    const run = this.#runs.get(node);
    if (!run) return false;
    const isNews = this.rivalOf(node, nowMs) === undefined;
    run.rival = { source, seenMs: nowMs };
    return isNews;
  }

  /** Where the other one calls from, as long as it does. */
  rivalOf(node: NodeKey, nowMs: number): string | undefined {
    const rival = this.#runs.get(node)?.rival;
    return rival && nowMs - rival.seenMs <= TOLD_MS ? rival.source : undefined;
  }

  /** Nodes whose key two hosts use now, and where those are. */
  clones(nowMs: number): { node: NodeKey; sources: [string, string] }[] {
    return [...this.#runs].flatMap(([node, { source }]) => {
      const rival = this.rivalOf(node, nowMs);
      return rival === undefined ? [] : [{ node, sources: [source, rival] as [string, string] }];
    });
  }

  sweep(nowMs: number): void {
    for (const [node, { seenMs }] of this.#runs) {
      if (nowMs - seenMs > LEASE_MS) this.#runs.delete(node);
    }
  }
}
