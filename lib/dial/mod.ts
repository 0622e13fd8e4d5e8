/**
 * Connections to servers by URL: every address of a name is tried (RFC 8305), the proxies of the
 * environment are used, and certificates are checked against the system's store and `--ca`.
 *
 * @example
 * using client = new HttpClient(systemDialer());
 * const response = await client.request("https://coord.example/v1/stun", { method: "GET", signal });
 */
export { ConnectionEndedError } from "../buffered_reader.ts";
export { Dialer, type DialNet } from "./dialer.ts";
export { DialError, nobodyListens } from "./errors.ts";
export { HttpClient, type HttpRequest } from "./http_client.ts";
export { systemDialer } from "./system.ts";
export { openWebSocket } from "./web_socket.ts";
