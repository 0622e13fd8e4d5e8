/** Names of interfaces that `up`, `hub` and `spoke` make. */
import { UsageError } from "../../errors.ts";

const IFNAMSIZ = 16;

/** Throws `UsageError`. */
export function checkIfacePattern(pattern: string): string {
  const example = pattern.replace("%d", "0");
  const isName = /^(?!\.{1,2}$)[A-Za-z0-9_.-]+$/.test(example) && example.length < IFNAMSIZ;
  if (isName) return pattern;
  throw new UsageError(
    `--iface ${JSON.stringify(pattern)} gives no interface name`,
    "Use up to 15 letters, digits, -, _ and ., with one %d",
  );
}
