/** A gateway that is asked by PCP. */
import { type Endpoint, equalEndpoints } from "../addr.ts";
import { equalBytes } from "../bytes.ts";
import type { Datagram } from "../edges.ts";
import { type EpochSeen, hasPcpRestarted } from "./epoch.ts";
import { PortMapRefusedError } from "./errors.ts";
import { ASK_PAUSES_MS, exchange } from "./exchange.ts";
import {
  decodePcpAnswer,
  encodeAnnounce,
  encodePcpMap,
  PCP_PORT,
  type PcpAnswer,
  type PcpMap,
  pcpResultText,
} from "./pcp.ts";
import type { GatewayAccess, Lease, LeaseState, MapRequest, PortMapper } from "./protocol.ts";

type Known = Exclude<PcpAnswer, { kind: "other-version" }>;

/** See `Discover`. */
export async function discoverPcp(
  access: GatewayAccess,
  signal: AbortSignal,
): Promise<PortMapper | undefined> {
  const mapper = new PcpMapper(access);
  return await mapper.announce(signal) ? mapper : undefined;
}

class PcpMapper implements PortMapper {
  readonly protocol = "pcp";
  /** Only a mapping tells. */
  readonly externalIp = undefined;
  /** At the time of the last answer. */
  #epoch: EpochSeen | undefined;
  readonly #access: GatewayAccess;

  constructor(access: GatewayAccess) {
    this.#access = access;
  }

  /** Whether the gateway answers, even to say that it does not do announcements. */
  async announce(signal: AbortSignal): Promise<boolean> {
    const isOurs = ({ kind }: Known) => kind === "announce";
    return await this.#ask(encodeAnnounce(this.#access.local), isOurs, signal) !== undefined;
  }

  async map(request: MapRequest, signal: AbortSignal): Promise<Lease> {
    const { external, lifetimeSeconds } = await this.#askMapping(request, signal);
    if (external.port === 0 || lifetimeSeconds === 0) {
      throw new PortMapRefusedError("an empty mapping was granted");
    }
    return { external, lifetimeSeconds };
  }

  async check(_: MapRequest, __: Lease, signal: AbortSignal): Promise<LeaseState> {
    const before = this.#epoch;
    if (!await this.announce(signal) || !before || !this.#epoch) return "unknown";
    return hasPcpRestarted(before, this.#epoch) ? "lost" : "kept";
  }

  async unmap(request: MapRequest, _: Lease, signal: AbortSignal): Promise<void> {
    await this.#askMapping({ ...request, lifetimeSeconds: 0 }, signal);
  }

  async #askMapping(request: MapRequest, signal: AbortSignal): Promise<PcpMap> {
    const bytes = encodePcpMap(this.#access.local, request);
    const isOurs = (answer: Known) => answer.kind === "map" && isAbout(answer.map, request);
    const answer = await this.#ask(bytes, isOurs, signal);
    if (!answer) throw new PortMapRefusedError("no answer to a request for a mapping");
    if (answer.kind !== "map" || !answer.map || answer.result !== 0) {
      throw new PortMapRefusedError(pcpResultText(answer.result));
    }
    return answer.map;
  }

  async #ask(
    bytes: Uint8Array,
    isOurs: (answer: Known) => boolean,
    signal: AbortSignal,
  ): Promise<Known | undefined> {
    const to: Endpoint = { ip: this.#access.gateway, port: PCP_PORT };
    const read = ({ bytes, from }: Datagram) => {
      if (!equalEndpoints(from, to)) return undefined;
      const answer = decodePcpAnswer(bytes);
      return answer.kind === "other-version" || isOurs(answer) ? answer : undefined;
    };
    const question = { requests: [{ bytes, to }], pausesMs: ASK_PAUSES_MS, read };
    const answer = await exchange(this.#access, question, signal);
    if (answer?.kind === "other-version") throw new PortMapRefusedError("unsupported version");
    if (answer) {
      this.#epoch = { epochSeconds: answer.epochSeconds, atMs: this.#access.clock.nowMs() };
    }
    return answer;
  }
}

/** Section 11.4: an answer is matched by protocol, internal port and nonce. */
function isAbout(map: PcpMap | undefined, request: MapRequest): boolean {
  if (!map) return true; // an error without the mapping: decodePcpAnswer gives no other
  return map.internalPort === request.internalPort && equalBytes(map.nonce, request.nonce);
}
