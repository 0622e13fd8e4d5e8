/** The rules of `rules.ts` and `gates.ts` for the links of a kernel plane. */
import type { Family } from "../../addr.ts";
import type { Host } from "../../host/mod.ts";
import { SystemError } from "../../linux/mod.ts";
import type { PlaneRefusal } from "../plane.ts";
import { buildGates, canGate, gateOf } from "./gates.ts";
import { type BuildTable, type LinkPart, LinkTable } from "./link_table.ts";
import { buildTable, elementsOf, type GuardedLink, type RuleOptions } from "./rules.ts";

const FORWARDING = {
  4: "/proc/sys/net/ipv4/ip_forward",
  6: "/proc/sys/net/ipv6/conf/all/forwarding",
} as const;

type PartOf = (link: GuardedLink) => LinkPart;

export class KernelGuard implements Disposable {
  readonly #tables: readonly { table: LinkTable; partOf: PartOf }[];
  readonly #stack: DisposableStack;

  /** Throws `NftError` where the kernel cannot have it. */
  constructor(
    host: Host,
    options: RuleOptions,
    { links, onFault }: {
      links: Iterable<readonly [string, GuardedLink]>;
      onFault: (what: string, error: unknown) => void;
    },
  ) {
    using stack = new DisposableStack();
    const all = [...links];
    const hasGates = canGate(host, options);
    const open = (build: BuildTable, partOf: PartOf) => {
      const parts = all.map(([id, link]) => [id, partOf(link)] as const);
      return { table: stack.use(new LinkTable(host, build, parts)), partOf };
    };
    this.#tables = [
      ...([4, 6] as const).map((family) =>
        open(
          (names) =>
            buildTable(family, { ...options, hasGates, forwards: forwards(host, family) }, names),
          (link) => ({ elements: elementsOf(link, family, options) }),
        )
      ),
      ...(hasGates ? [open(() => buildGates(options), (link) => gateOf(link, options))] : []),
    ];
    stack.use(host.watchTables(() => this.#look(onFault)));
    this.#stack = stack.move();
  }

  /** The link is this; undefined: it is gone. Throws `NftError`. */
  set(id: string, link: GuardedLink | undefined): void {
    for (const { table, partOf } of this.#tables) table.set(id, link && partOf(link));
  }

  /** Somebody has removed tables: ours are made again. */
  #look(onFault: (what: string, error: unknown) => void): void {
    try {
      this.refresh();
    } catch (error) {
      onFault("guard not set", error);
    }
  }

  /** Lookalikes may be others now, or somebody may have removed the rules. Throws `NftError`. */
  refresh(): void {
    for (const { table } of this.#tables) table.refresh();
  }

  /** Packets, by reason. */
  refused(): Map<PlaneRefusal, number> {
    const sum = new Map<PlaneRefusal, number>();
    for (const { table } of this.#tables) {
      for (const [reason, count] of table.refused()) {
        sum.set(reason, (sum.get(reason) ?? 0) + count);
      }
    }
    return sum;
  }

  /** The rules stay when this is disposed. */
  release(): void {
    for (const { table } of this.#tables) table.release();
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/** A kernel without the family forwards none of it. */
function forwards(host: Host, family: Family): boolean {
  try {
    return host.readFile(FORWARDING[family]).trim() !== "0";
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}
