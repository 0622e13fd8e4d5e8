/** Keeps links as they should be: compares them with the kernel's, and puts right what others changed. */
import { Alarm } from "../alarm.ts";
import type { Clock, Log, LogFields } from "../edges.ts";
import { errorText, GretunError } from "../errors.ts";
import { hasCode, type RtNetlink } from "../netlink.ts";
import {
  type Difference,
  differences,
  differencesText,
  type Facet,
  type KeptState,
  type PresentState,
  presentStates,
} from "./differences.ts";
import { addAddress, addRoute } from "./inner.ts";
import { decideMend, type MendHistory, NEVER_MENDED } from "./mend_policy.ts";

/** What could not be put right is tried again, though there may be no news of it. */
const RETRY_MS = 2_000;

export interface KeptLink {
  ifindex: number;
  state: KeptState;
}

export interface LinkKeeperOptions {
  rtnl: RtNetlink;
  clock: Clock;
  log: Log;
  /** All links, as they should be now. */
  wanted: () => Iterable<KeptLink>;
}

export class LinkKeeper implements Disposable {
  readonly #options: LinkKeeperOptions;
  /** By ifindex, of links that others changed of late. */
  #histories = new Map<number, Map<Facet, MendHistory>>();
  /** What was told last that cannot be put right, by ifindex. */
  readonly #failures = new Map<number, string>();
  readonly #retry: Alarm;

  constructor(options: LinkKeeperOptions) {
    this.#options = options;
    this.#retry = new Alarm(options.clock, () => this.#lookAgain());
  }

  [Symbol.dispose](): void {
    this.#retry[Symbol.dispose]();
  }

  /** At any news of links, addresses or routes; costs a few dumps, whatever the number of links. */
  look(): void {
    const wanted = [...this.#options.wanted()];
    if (wanted.length === 0) return;
    const { rtnl } = this.#options;
    const present = presentStates(
      rtnl.links({ skipStats: true }),
      rtnl.addresses(),
      rtnl.routes(),
    );
    const histories = new Map<number, Map<Facet, MendHistory>>();
    for (const link of wanted) {
      const known = this.#histories.get(link.ifindex);
      if (known) histories.set(link.ifindex, known);
    }
    this.#histories = histories; // those of links that are gone go
    for (const ifindex of this.#failures.keys()) {
      if (!wanted.some((link) => link.ifindex === ifindex)) this.#failures.delete(ifindex);
    }
    for (const link of wanted) this.#compare(link, present(link.ifindex));
  }

  /** A link that is gone is not ours to make again. */
  #compare({ ifindex, state }: KeptLink, present: PresentState | undefined): void {
    if (!present) return;
    const found = differences(state, present);
    const decided = Map.groupBy(found, (difference) => this.#decide(ifindex, difference));
    const [given, mended] = [decided.get("give-up"), decided.get("mend")];
    if (given) this.#giveUp(state, given);
    if (mended) this.#mend({ ifindex, state }, mended);
    for (const { facet } of [...given ?? [], ...decided.get("leave") ?? []]) {
      const { pausedUntilMs } = this.#histories.get(ifindex)!.get(facet)!;
      this.#retry.setEarlier(pausedUntilMs);
    }
  }

  #decide(ifindex: number, { facet }: Difference) {
    const histories = this.#histories.get(ifindex) ?? new Map<Facet, MendHistory>();
    const { clock } = this.#options;
    const [decision, history] = decideMend(histories.get(facet) ?? NEVER_MENDED, clock.nowMs());
    this.#histories.set(ifindex, histories.set(facet, history));
    return decision;
  }

  #giveUp({ name }: KeptState, found: readonly Difference[]): void {
    this.#options.log.error("another program keeps changing a link of ours, leaving it so", {
      ifname: name,
      what: differencesText(found),
      hint: `Tell it to leave ${name} alone, as unmanaged; it is put right again now and then`,
    });
  }

  #mend({ ifindex, state }: KeptLink, found: readonly Difference[]): void {
    const { rtnl, log } = this.#options;
    const fields = { ifname: state.name, what: differencesText(found) };
    try {
      for (const difference of found) mendOne(rtnl, ifindex, state, difference);
      this.#failures.delete(ifindex);
      const isFirst = found.some(({ facet }) =>
        this.#histories.get(ifindex)!.get(facet)!.timesMs.length === 1
      );
      log[isFirst ? "warn" : "debug"]("link was not as it should be, put right", fields);
    } catch (error) {
      if (hasCode(error, "ENODEV")) return; // it has gone meanwhile
      if (!(error instanceof GretunError)) throw error;
      this.#failed(ifindex, found, { ...fields, error: errorText(error) });
    }
  }

  /** Nobody has undone anything: it is tried on at the same pace, and told once. */
  #failed(ifindex: number, found: readonly Difference[], fields: LogFields): void {
    const histories = this.#histories.get(ifindex)!;
    for (const { facet } of found) {
      const history = histories.get(facet)!;
      histories.set(facet, { ...history, timesMs: history.timesMs.slice(0, -1) });
    }
    const text = JSON.stringify(fields);
    const isNews = this.#failures.get(ifindex) !== text;
    this.#failures.set(ifindex, text);
    this.#options.log[isNews ? "warn" : "debug"](
      "link is not as it should be, cannot be put right",
      fields,
    );
    this.#retry.within(RETRY_MS);
  }

  #lookAgain(): void {
    try {
      this.look();
    } catch (error) {
      this.#options.log.warn("links not looked at", { error: errorText(error) });
    }
  }
}

/** Throws `GretunError`. */
function mendOne(
  rtnl: RtNetlink,
  ifindex: number,
  state: KeptState,
  difference: Difference,
): void {
  switch (difference.facet) {
    case "name":
      return rename(rtnl, ifindex, state.name);
    case "alias":
      return rtnl.changeLink(ifindex, { alias: state.alias });
    case "mtu":
      return rtnl.changeLink(ifindex, { mtu: state.mtu! });
    case "addresses":
      return difference.missing.forEach((address) => addAddress(rtnl, ifindex, address));
    case "up":
      return rtnl.changeLink(ifindex, { up: true });
    case "routes":
      return difference.missing.forEach((route) => addRoute(rtnl, ifindex, route));
    default:
      difference satisfies never;
  }
}

/** Older kernels rename no link that is up. What it loses by being down is mended with the next news. */
function rename(rtnl: RtNetlink, ifindex: number, name: string): void {
  try {
    rtnl.changeLink(ifindex, { name });
  } catch (error) {
    if (!hasCode(error, "EBUSY")) throw error;
    rtnl.changeLink(ifindex, { up: false });
    try {
      rtnl.changeLink(ifindex, { name });
    } finally {
      rtnl.changeLink(ifindex, { up: true });
    }
  }
}
