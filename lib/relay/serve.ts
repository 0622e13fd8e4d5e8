/** The server's door: nodes need none of it. */
export { KernelForwarding } from "./kernel.ts";
export { RelayServer, type RelayServerOptions } from "./server.ts";
