/** The rules of `rules.ts` for the links of a kernel plane: a table for each family. */
import type { Host } from "../../host/mod.ts";
import type { PlaneRefusal } from "../plane.ts";
import { LinkTable } from "./link_table.ts";
import { buildTable, elementsOf, type GuardedLink, type RuleOptions } from "./rules.ts";

export class KernelGuard implements Disposable {
  readonly #tables: readonly { family: 4 | 6; table: LinkTable }[];
  readonly #options: RuleOptions;
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
    this.#options = options;
    const all = [...links];
    this.#tables = ([4, 6] as const).map((family) => {
      const elements = all.map(([id, link]) => [id, elementsOf(link, family, options)] as const);
      const build = (names: ReadonlySet<string>) => buildTable(family, options, names);
      return { family, table: stack.use(new LinkTable(host, build, elements)) };
    });
    stack.use(host.watchTables(() => this.#look(onFault)));
    this.#stack = stack.move();
  }

  /** The link is this; undefined: it is gone. Throws `NftError`. */
  set(id: string, link: GuardedLink | undefined): void {
    for (const { family, table } of this.#tables) {
      table.set(id, link && elementsOf(link, family, this.#options));
    }
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
