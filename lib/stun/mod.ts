/**
 * STUN binding (RFC 8489): the codec, a client over any datagram transport, and a server; and what
 * they tell about a NAT (RFC 5780).
 *
 * @example
 * const client = new StunClient({ send, clock: systemClock, random: systemRandom });
 * const answers = await client.query(await resolveServers(names), { timeoutMs: 3000 });
 */
export { AnswerLimit } from "./answer_limit.ts";
export { ATTRIBUTE, errorCode } from "./attributes.ts";
export { answerBinding } from "./binding.ts";
export { type QueryOptions, type StunAnswer, StunClient, type StunServer } from "./exchange.ts";
export { type FilteringTest, type FilteringTestOptions, testFiltering } from "./filtering.ts";
export {
  BINDING_PATTERN,
  COOKIE_PATTERN,
  decodeStun,
  encodeStun,
  HEADER_LENGTH,
  isStun,
  methodPattern,
  type StunAttribute,
  StunFormatError,
  type StunMessage,
  TX_ID_LENGTH,
} from "./message.ts";
export {
  type FilteringBehaviour,
  filteringBehaviour,
  type FilteringSighting,
  type MappingBehaviour,
  mappingBehaviour,
} from "./nat.ts";
export { DEFAULT_STUN_PORT, parseServerName, resolveServers, serverAt } from "./resolve.ts";
export { type StunListen, StunService } from "./server.ts";
