/**
 * Who may open what at whom, and so who sees whom. Pure. It knows nodes by what they cannot choose
 * themselves: tags and names that the operator gave, and node keys that were proven.
 */
import type { NodeKey } from "../keys.ts";
import { type Access, isNothing, NOTHING, union } from "./access.ts";

export type { Access };

/** "*", "tag:T", "name:N", or "key:" and a node key in hex. */
export type Word = string;
export const EVERYBODY: Word = "*";

export interface Subject {
  /** Absent: nobody has proven to have it. */
  nodeKey?: NodeKey;
  /** That the operator gave. */
  name?: string;
  tags?: readonly string[];
}

/** All words that a rule may mean it by. */
export function wordsOf({ nodeKey, name, tags = [] }: Subject): Word[] {
  return [
    EVERYBODY,
    ...(nodeKey === undefined ? [] : [`key:${nodeKey}`]),
    ...(name === undefined ? [] : [`name:${name}`]),
    ...tags.map((tag) => `tag:${tag}`),
  ];
}

export interface Rule {
  line: number;
  from: ReadonlySet<Word>;
  to: ReadonlySet<Word>;
  allow: Access;
}

/** All nodes that the rules do not tell apart. */
export interface Role {
  readonly id: string;
  /** Of rules whose `from`, or `to`, it is in. */
  readonly from: ReadonlySet<number>;
  readonly to: ReadonlySet<number>;
  /** What it may open at others; filled as they are asked about. */
  readonly opens: Map<Role, Access>;
}

export class Policy {
  readonly rules: readonly Rule[];
  readonly #roles = new Map<string, Role>();

  constructor(rules: readonly Rule[]) {
    this.rules = rules;
  }

  role(words: readonly Word[]): Role {
    const within = (side: "from" | "to") =>
      this.rules.flatMap((rule, i) => words.some((word) => rule[side].has(word)) ? [i] : []);
    const [from, to] = [within("from"), within("to")];
    const id = `${from}|${to}`;
    const role = this.#roles.get(id) ??
      { id, from: new Set(from), to: new Set(to), opens: new Map() };
    this.#roles.set(id, role);
    return role;
  }

  /** What the one may open at the other. */
  access(from: Role, to: Role): Access {
    let access = from.opens.get(to);
    if (!access) {
      const allowed = this.rulesFor(from, to).map(({ allow }) => allow);
      access = allowed.length === 0 ? NOTHING : union(...allowed);
      from.opens.set(to, access);
    }
    return access;
  }

  rulesFor(from: Role, to: Role): Rule[] {
    return [...from.from].filter((i) => to.to.has(i)).map((i) => this.rules[i]!);
  }

  /** Whether one of them may open anything at the other. */
  sees(a: Role, b: Role): boolean {
    return !isNothing(this.access(a, b)) || !isNothing(this.access(b, a));
  }
}
