/**
 * The daemon of `gretun up`. `control.ts` is a door of its own, as who only asks a running daemon needs
 * none of the rest, and so is `metrics.ts`, for those that are looked at.
 *
 * @example
 * const identity = await loadIdentity(stateDir, systemRandom, (path, written) => told(path, written));
 * await using edges = systemEdges({ log, sign: await signer(identity.nodeSeed), control });
 * await runDaemon({ coordinator, identity, ...options }, edges, signal);
 */
export { type DaemonOptions, runDaemon } from "./daemon.ts";
export { type DaemonEdges, systemEdges, type SystemEdgesOptions } from "./edges.ts";
export { type Identity, newIdentity } from "./identity.ts";
export { loadIdentity } from "./key_file.ts";
export { NO_METER } from "./meter.ts";
