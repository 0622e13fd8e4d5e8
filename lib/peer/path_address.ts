/** A way to a peer: where its packets go to, and the port of ours that they leave from. */
import { type Endpoint, equalEndpoints, formatEndpoint } from "../addr.ts";

/** An {@link Endpoint} alone is reached from the main port; `localPort` is an extra one. */
export type PathAddress = Endpoint & { readonly localPort?: number };

export function equalPaths(a: PathAddress, b: PathAddress): boolean {
  return equalEndpoints(a, b) && a.localPort === b.localPort;
}

/** One text for each: for keys of maps. */
export function formatPath(path: PathAddress): string {
  const { localPort } = path;
  return formatEndpoint(path) + (localPort === undefined ? "" : ` from port ${localPort}`);
}
