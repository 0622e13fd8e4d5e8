/** What the writer of a policy expects of it, written beside it. */
import { type Access, contains, formatAccess, overlaps } from "./access.ts";
import { PolicyError } from "./document.ts";
import type { Policy, Word } from "./policy.ts";

export interface PolicyTest {
  line: number;
  /** The words of each node that it is about. */
  from: readonly (readonly Word[])[];
  to: readonly (readonly Word[])[];
  may: Access;
  mayNot: Access;
}

/** Throws {@link PolicyError} where the policy does not do so. */
export function runTest(policy: Policy, { line, from, to, may, mayNot }: PolicyTest): void {
  for (const [a, b] of from.flatMap((a) => to.map((b) => [a, b] as const))) {
    const access = policy.access(policy.role(a), policy.role(b));
    const allowed = formatAccess(access).join(" ") || "nothing";
    const pair = `${a.at(-1)} may open ${allowed} at ${b.at(-1)}`;
    if (!contains(access, may)) {
      throw new PolicyError(line, `test: ${pair}, not all of ${formatAccess(may).join(" ")}`);
    }
    if (overlaps(access, mayNot)) {
      throw new PolicyError(line, `test: ${pair}, and must not ${formatAccess(mayNot).join(" ")}`);
    }
  }
}
