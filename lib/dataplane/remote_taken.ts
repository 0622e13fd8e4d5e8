/** Two links to one address, without keys: what arrives could be of either. */
import type { Ip } from "../addr.ts";
import { GretunError } from "../errors.ts";

export function remoteTaken(ip: Ip, cause?: unknown): GretunError {
  return new GretunError(
    `another tunnel goes to ${ip}, and without GRE keys nothing tells their packets apart`,
    "Start gretun up without --gre-key off, on every node",
    { cause },
  );
}
