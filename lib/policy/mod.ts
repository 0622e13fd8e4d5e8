/**
 * The policy of an overlay: who may open what at whom.
 *
 * @example
 * const { policy } = readPolicy(`{ "rules": [
 *   // Everybody may use the web servers.
 *   { "from": "*", "to": "tag:web", "allow": ["tcp:80,443", "icmp"] },
 * ] }`);
 * const anybody = policy.role(wordsOf({}));
 * policy.access(anybody, policy.role(wordsOf({ tags: ["web"] })));
 */
export { type Access, formatAccess, parseAccess } from "./access.ts";
export { PolicyError } from "./document.ts";
export { parsePolicy, type PolicyFile, readPolicy } from "./parse.ts";
export { Policy, type Role, type Rule, type Subject, wordsOf } from "./policy.ts";
export { type PolicyTest, runTest } from "./trial.ts";
