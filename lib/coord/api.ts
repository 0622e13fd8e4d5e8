/** The coordinator's v1 API as types, and their JSON form both ways. */
export { ApiError } from "./api/json.ts";
export * from "./api/collisions.ts";
export * from "./api/node.ts";
export * from "./api/relay.ts";
export * from "./api/headers.ts";
export * from "./api/token.ts";
export type { Signed } from "./api/signed.ts";
export * from "./api/statement.ts";
