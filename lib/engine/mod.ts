/**
 * The user-space data path in threads of its own: see {@link Engine}.
 *
 * @example
 * await using engine = Engine.open(options);
 * const link = engine.addLink("gretun0");
 * engine.setLink(link, { mtu: 1464, remote, keys });
 */
export { Engine, type EngineFeatures, type EngineLink, type EngineOptions } from "./engine.ts";
export {
  type Drop,
  DROPS,
  type Encapsulation,
  type LinkSeal,
  type SealedSession,
} from "./messages.ts";
