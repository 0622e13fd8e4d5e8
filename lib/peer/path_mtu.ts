/**
 * How large packets a path carries, as a pure function: no clock, no socket, no randomness. Sizes are
 * of whole IP packets outside.
 *
 * Pings of these sizes go out in salvos, with a small one behind them. Where that is answered and a
 * larger one before it is not, the larger one was lost for its size or by chance: how often small
 * ones are lost says how many such losses are no chance any more. So neither a lossy path nor a peer
 * that is away makes a path narrow.
 *
 * A path is taken to carry what the route says, and that is looked at when the path is new and now
 * and then while it is used. When it fails twice, usual sizes are tried at once, then those between
 * the largest that is answered and the smallest that is not. Every few minutes of use a narrow path
 * is tried for more.
 */

/** Between two looks at the present size: while data comes back, and while none does. */
export const CHECK_GAP_MS = 5_000;
export const SILENT_CHECK_GAP_MS = 2_000;
/** Between two looks for more. */
export const GROW_GAP_MS = 180_000;
/** Between two salvos of a round. */
const SALVO_GAP_MS = 50;
/** A round's first salvo shows what is worth asking for next, if it is answered by then. */
const FIRST_SALVO_MS = 500;
/** Larger pings may be answered so much later than smaller ones behind them. */
const LATE_MS = 50;
/** A small ping that is not answered by then is lost. */
const LOST_MS = 1_500;
/** Failures of the present size that begin a search. */
const MISSES_OF_CHECK = 2;
/** How likely it may be that a size which is called too large was only unlucky. */
const MISTAKE = 1e-5;
/** A path on which that takes more is too bad to tell. */
const MAX_SALVOS = 40;
const MAX_UNHEARD_SALVOS = 5;
/** Sizes asked for in a round, besides the next larger one. */
const SPREAD = 6;
/** Ethernet, PPPoE, tunnels and their likes. */
const USUAL_SIZES = [
  ...[800, 1000, 1200, 1280, 1360, 1400, 1420, 1440, 1460, 1480, 1492, 1500] as const,
  ...[2000, 4000, 8000, 9000] as const,
];

/** Some sizes and, behind them, a small ping, sent together. */
interface Salvo {
  readonly id: number;
  readonly sentMs: number;
  readonly sizes: readonly number[];
  /** Whether the small ping is answered. */
  readonly isAnswered: boolean;
  /** When a small ping of this salvo, or of a later one, was. */
  readonly passedMs?: number;
}

interface Search {
  readonly kind: "check" | "narrow" | "grow";
  /** The largest size that is answered, or is not asked for; and the smallest that is too large. */
  readonly low: number;
  readonly high: number;
  /** Asked for in this round, in ascending order. */
  readonly sizes: readonly number[];
  /** The first salvo of this round. */
  readonly firstId: number;
  readonly salvos: readonly Salvo[];
  readonly misses: ReadonlyMap<number, number>;
  /** Small pings whose fate is known. */
  readonly small: { readonly known: number; readonly lost: number };
}

export interface PathMtu {
  /** No path carries less. */
  readonly least: number;
  /** What the route says. */
  readonly widest: number;
  /** What the path carries where that is less than the route says. */
  readonly limit?: number;
  /** The largest size that was answered. */
  readonly confirmed: number;
  /** When the present size was last looked at, and when it was last tried whether there is more. */
  readonly lookedMs: number;
  readonly triedMs: number;
  readonly sentSalvos: number;
  readonly search?: Search;
}

export type PathMtuEvent =
  /** The path is to be looked at now. */
  | { kind: "look"; nowMs: number; widest: number }
  /** Data went out; `isSilent`: and none came back. */
  | { kind: "use"; nowMs: number; widest: number; isSilent: boolean }
  /** A ping of that salvo was answered; without a size, the small one. */
  | { kind: "pong"; nowMs: number; salvo: number; size?: number }
  | { kind: "tick"; nowMs: number }
  /** The path is not to be used now. */
  | { kind: "stop"; nowMs: number };

/** Without a size: a ping that is not padded. */
export interface Probe {
  salvo: number;
  size?: number;
}

/** `limit`: as it was found earlier, to be looked at. */
export function newPathMtu(least: number, limit?: number): PathMtu {
  return {
    ...{ least, widest: least, confirmed: 0, lookedMs: -Infinity, triedMs: -Infinity },
    ...{ sentSalvos: 0, ...(limit === undefined ? {} : { limit }) },
  };
}

/** What the path is taken to carry now. */
export function pathMtuOf({ least, widest, limit = widest }: PathMtu): number {
  return Math.max(least, Math.min(limit, widest));
}

/** The state after `event`, and the pings to be sent, in order. */
export function stepPathMtu(before: PathMtu, event: PathMtuEvent): [PathMtu, Probe[]] {
  const next = new Transition(before, event.nowMs);
  next.take(event);
  next.catchUp();
  return [next.state, next.probes];
}

/** When the next tick is wanted; Infinity when nothing is due. */
export function nextPathMtuMs({ search }: PathMtu): number {
  if (!search) return Infinity;
  return Math.min(nextSalvoMs(search), ...search.salvos.map(knownMs));
}

/** Whether the path is worth a look now that data goes out; to be asked often. */
export function isPathMtuDue(state: PathMtu, nowMs: number, isSilent: boolean): boolean {
  return dueSearch(state, nowMs, isSilent) !== undefined;
}

function dueSearch(state: PathMtu, nowMs: number, isSilent: boolean) {
  const { search, widest, triedMs, lookedMs, confirmed } = state;
  if (search) return undefined;
  const size = pathMtuOf(state);
  if (size < widest && nowMs - triedMs >= GROW_GAP_MS) return "grow";
  const gapMs = isSilent || size > confirmed ? SILENT_CHECK_GAP_MS : CHECK_GAP_MS;
  return nowMs - lookedMs >= gapMs ? "check" : undefined;
}

/** When it is known what became of it. */
function knownMs({ sentMs, passedMs }: Salvo): number {
  return passedMs === undefined ? sentMs + LOST_MS : passedMs + LATE_MS;
}

function nextSalvoMs(search: Search): number {
  const { salvos, firstId } = search;
  const last = salvos.at(-1);
  if (!last) return -Infinity;
  if (search.kind === "check") return Infinity; // one at a time
  if (last.id === firstId) return last.sentMs + FIRST_SALVO_MS;
  const size = smallest(search);
  const pending = salvos.filter(({ sizes }) => sizes.includes(size)).length;
  const isEnough = missesOf(search, size) + pending >= missesWanted(search);
  return isEnough ? Infinity : last.sentMs + SALVO_GAP_MS;
}

function missesOf({ misses }: Search, size: number): number {
  return misses.get(size) ?? 0;
}

/** The next size that is not known to be carried; Infinity when all are. */
function smallest({ sizes, low }: Search): number {
  return sizes.find((size) => size > low) ?? Infinity;
}

/** So many losses in a row are no chance, as often as small pings are lost (rule of succession). */
function missesWanted({ kind, small: { known, lost } }: Search): number {
  if (kind === "check") return MISSES_OF_CHECK;
  return Math.ceil(Math.log(MISTAKE) / Math.log((lost + 1) / (known + 2)));
}

class Transition {
  state: PathMtu;
  readonly probes: Probe[] = [];
  readonly #nowMs: number;

  constructor(before: PathMtu, nowMs: number) {
    this.state = before;
    this.#nowMs = nowMs;
  }

  take(event: PathMtuEvent): void {
    switch (event.kind) {
      case "look":
        this.#set({ widest: event.widest });
        return this.#begin("check", { low: 0 }, [pathMtuOf(this.state)]);
      case "use":
        return this.#used(event);
      case "pong":
        return this.#answered(event.salvo, event.size);
      case "tick":
        return;
      case "stop":
        return this.#end({});
      default:
        event satisfies never;
    }
  }

  catchUp(): void {
    this.#settle();
    this.#conclude();
    const { search } = this.state;
    if (search && nextSalvoMs(search) <= this.#nowMs) this.#send(search);
  }

  #set(change: Partial<PathMtu>): void {
    this.state = { ...this.state, ...change };
  }

  #setSearch(change: Partial<Search>): void {
    this.#set({ search: { ...this.state.search!, ...change } });
  }

  #end(change: Partial<PathMtu>): void {
    const { search: _, ...state } = { ...this.state, ...change };
    this.state = state;
  }

  #used({ widest, isSilent }: { widest: number; isSilent: boolean }): void {
    this.#set({ widest });
    const size = pathMtuOf(this.state);
    const due = dueSearch(this.state, this.#nowMs, isSilent);
    if (due === "grow") this.#begin(due, { low: size }, this.#usualAbove(size));
    if (due === "check") this.#begin(due, { low: 0 }, [size]);
  }

  /** Up to the widest. */
  #usualAbove(low: number): number[] {
    const { widest } = this.state;
    return [...USUAL_SIZES.filter((size) => size > low && size < widest), widest];
  }

  #begin(
    kind: Search["kind"],
    { low, high = Infinity }: { low: number; high?: number },
    sizes: readonly number[],
  ): void {
    const { small } = this.state.search ?? { small: { known: 0, lost: 0 } };
    const firstId = this.state.sentSalvos;
    this.#set({
      search: { kind, low, high, sizes, firstId, salvos: [], misses: new Map(), small },
    });
  }

  /** What carries one size carries all that are smaller. */
  #answered(id: number, size?: number): void {
    const { search } = this.state;
    if (!search) return;
    if (size !== undefined) return this.#setSearch({ low: Math.max(search.low, size) });
    const salvos = search.salvos.map((salvo) => ({
      ...salvo,
      ...(salvo.id === id ? { isAnswered: true } : {}),
      ...(salvo.id <= id && salvo.passedMs === undefined ? { passedMs: this.#nowMs } : {}),
    }));
    this.#setSearch({ salvos });
  }

  /** Looks at what became of salvos. */
  #settle(): void {
    const { search } = this.state;
    if (!search) return;
    const known = search.salvos.filter((salvo) => knownMs(salvo) <= this.#nowMs);
    if (known.length === 0) return;
    const misses = new Map(search.misses);
    for (const { sizes, passedMs } of known) {
      if (passedMs === undefined) continue;
      for (const size of sizes) misses.set(size, (misses.get(size) ?? 0) + 1);
    }
    const lost = known.filter(({ isAnswered }) => !isAnswered).length;
    this.#setSearch({
      misses,
      salvos: search.salvos.filter((salvo) => !known.includes(salvo)),
      small: { known: search.small.known + known.length, lost: search.small.lost + lost },
    });
  }

  #conclude(): void {
    const { search, sentSalvos } = this.state;
    if (!search) return;
    const { small: { known, lost }, firstId, kind, low, high } = search;
    const size = smallest(search);
    if (size === Infinity) return this.#found(low);
    if (size >= high) return this.#refine(search, high);
    const isUnheard = known === lost && known >= MAX_UNHEARD_SALVOS;
    if (isUnheard || sentSalvos - firstId >= MAX_SALVOS) {
      return this.#end({ lookedMs: this.#nowMs });
    }
    if (missesOf(search, size) < missesWanted(search)) return;
    if (kind === "check") return this.#narrow();
    this.#refine(search, size);
  }

  /** The present size fails. */
  #narrow(): void {
    const { least, widest } = this.state;
    const sizes = new Set([...this.#usualAbove(least), pathMtuOf(this.state)]);
    const low = { low: least };
    this.#begin("narrow", low, [...sizes].filter((size) => size <= widest).sort((a, b) => a - b));
  }

  /** The largest that is carried is between `low` and `high`; the widest is asked for as ever. */
  #refine(search: Search, high: number): void {
    const { low, kind } = search;
    const isLess = kind === "grow" && low === pathMtuOf(this.state);
    if (isLess || high - low <= 1) return this.#found(low);
    this.#set({ limit: low, confirmed: low });
    const part = (high - low - 1) / (SPREAD + 1);
    const between = Array.from({ length: SPREAD }, (_, i) => low + 1 + Math.floor((i + 1) * part));
    const sizes = new Set([low + 1, ...between.filter((size) => size < high), this.state.widest]);
    this.#begin(kind, { low, high }, [...sizes].sort((a, b) => a - b));
  }

  #found(low: number): void {
    const { widest, search } = this.state;
    const nowMs = this.#nowMs;
    if (search!.kind !== "check") this.#set({ triedMs: nowMs });
    if (search!.kind !== "grow") this.#set({ lookedMs: nowMs });
    const { limit = 0, ...state } = { ...this.state, confirmed: low };
    // What is more than the route says was not asked for.
    const isKept = search!.kind === "check" && limit > widest;
    const known = isKept ? limit : low;
    this.state = known === widest ? state : { ...state, limit: known };
    this.#end({});
  }

  #send(search: Search): void {
    const { sentSalvos: id } = this.state;
    const { sizes, low, salvos, firstId } = search;
    const left = sizes.filter((size) => size > low);
    // The widest, too: if it has failed by chance, it does not do so for ever.
    const few = [...new Set([...left.slice(0, 2), left.at(-1)!])];
    const chosen = id === firstId ? left : few;
    const salvo = { id, sentMs: this.#nowMs, sizes: chosen, isAnswered: false };
    this.#set({ sentSalvos: id + 1 });
    this.#setSearch({ salvos: [...salvos, salvo] });
    for (const size of chosen.toReversed()) this.probes.push({ salvo: id, size });
    this.probes.push({ salvo: id });
  }
}
