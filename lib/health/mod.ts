/** Whether the other end of a tunnel answers. */
export { ping, type PingOptions, type PingResult, type PingTarget } from "./ping.ts";
