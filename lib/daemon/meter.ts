/** What a daemon counts. Without anybody to look, what counts is not even loaded. */
import type { DaemonMetrics } from "./metrics.ts";

export type DaemonMeter = Pick<
  DaemonMetrics,
  | ("watchReport" | "watchPlane" | "peerAdded" | "peerRemoved" | "peerChanged")
  | ("pingSent" | "pingHeldBack" | "pongReceived" | "collided" | "punched")
>;

export const NO_METER: DaemonMeter = {
  watchReport() {},
  watchPlane() {},
  peerAdded() {},
  peerRemoved() {},
  peerChanged() {},
  pingSent() {},
  pingHeldBack() {},
  pongReceived() {},
  collided() {},
  punched() {},
};
