/**
 * The user-space data path in threads of its own: see {@link Engine}.
 *
 * @example
 * await using engine = Engine.open(options);
 * const link = engine.addLink("gretun0");
 * engine.setLink(link, { mtu: 1464, remote, keys });
 */
export {
  Engine,
  type EngineFeatures,
  type EngineLink,
  type EngineOptions,
  type PacketEngine,
} from "./engine.ts";
export { refusesPacket } from "./inner_check.ts";
export {
  type Drop,
  DROPS,
  type Encapsulation,
  type LinkSeal,
  type SealedSession,
} from "./messages.ts";
export { isIpPacket } from "./packet.ts";
