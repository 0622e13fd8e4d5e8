/** The door of the daemon room: `gretun up` runs {@link runDaemon}, other commands ask it. */
export { type DaemonOptions, runDaemon } from "./daemon.ts";
export { askDaemon, type DaemonReport } from "./control.ts";
export type { PeerReport } from "./peers.ts";
