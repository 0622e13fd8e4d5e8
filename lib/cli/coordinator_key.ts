/** `--coordinator-key`, of programs that call a coordinator. */
import { UsageError } from "../errors.ts";
import { type NodeKey, nodeKeyFromBase64 } from "../keys.ts";

/** Throws `UsageError`. */
export function parseCoordinatorKey(text: string): NodeKey {
  try {
    return nodeKeyFromBase64(text);
  } catch {
    throw new UsageError(
      `--coordinator-key ${JSON.stringify(text)} is no key`,
      "Give what gretun-coord status shows as its key",
    );
  }
}
