/** The token that lets a host join, as `gretun-coord token create` prints it. */
import { parseTokenText } from "../../coord/api.ts";
import { UsageError } from "../../errors.ts";

/** Never quotes it. Throws `UsageError`. */
export function parseJoinToken(text: string, where = "the token") {
  try {
    return parseTokenText(text);
  } catch {
    throw new UsageError(
      `${where} is not a token`,
      "Give what gretun-coord token create printed, whole",
    );
  }
}
