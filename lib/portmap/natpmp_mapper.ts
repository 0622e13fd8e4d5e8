/** A gateway that is asked by NAT-PMP. */
import { type Endpoint, equalEndpoints, type Ip } from "../addr.ts";
import type { Datagram } from "../edges.ts";
import { type EpochSeen, hasNatPmpRestarted } from "./epoch.ts";
import { PortMapRefusedError } from "./errors.ts";
import { ASK_PAUSES_MS, exchange } from "./exchange.ts";
import {
  decodeNatPmpAnswer,
  encodeAddressRequest,
  encodeMapRequest,
  NATPMP_PORT,
  type NatPmpAnswer,
  natPmpResultText,
} from "./natpmp.ts";
import type { GatewayAccess, Lease, LeaseState, MapRequest, PortMapper } from "./protocol.ts";

type Kind = "address" | "map";
type Answer<K extends Kind> = Extract<NatPmpAnswer, { kind: K }>;

/** See `Discover`. */
export async function discoverNatPmp(
  access: GatewayAccess,
  signal: AbortSignal,
): Promise<PortMapper | undefined> {
  const mapper = new NatPmpMapper(access);
  return await mapper.askAddress(signal) ? mapper : undefined;
}

class NatPmpMapper implements PortMapper {
  readonly protocol = "natpmp";
  #externalIp: Ip | undefined;
  /** At the time of the last answer. */
  #epoch: EpochSeen | undefined;
  readonly #access: GatewayAccess;

  constructor(access: GatewayAccess) {
    this.#access = access;
  }

  get externalIp(): Ip | undefined {
    return this.#externalIp;
  }

  /** Undefined: no answer. */
  async askAddress(signal: AbortSignal): Promise<Answer<"address"> | undefined> {
    const pick = (answer: NatPmpAnswer) => answer.kind === "address" ? answer : undefined;
    const answer = await this.#ask("address", encodeAddressRequest(), pick, signal);
    this.#externalIp = answer?.external ?? this.#externalIp;
    return answer;
  }

  async map(request: MapRequest, signal: AbortSignal): Promise<Lease> {
    const { externalPort, lifetimeSeconds } = await this.#askMapping(request, signal);
    // An answer about a mapping has no address, and the address may have changed.
    const ip = (await this.askAddress(signal))?.external;
    if (!ip) throw new PortMapRefusedError("no answer to a request for the external address");
    return { external: { ip, port: externalPort }, lifetimeSeconds };
  }

  async check(_: MapRequest, lease: Lease, signal: AbortSignal): Promise<LeaseState> {
    const before = this.#epoch;
    const answer = await this.askAddress(signal);
    if (!answer || !before || !this.#epoch) return "unknown";
    const isLost = answer.external !== lease.external.ip || hasNatPmpRestarted(before, this.#epoch);
    return isLost ? "lost" : "kept";
  }

  async unmap(request: MapRequest, _: Lease, signal: AbortSignal): Promise<void> {
    const external = { ...request.external, port: 0 };
    await this.#askMapping({ ...request, external, lifetimeSeconds: 0 }, signal);
  }

  async #askMapping(
    { internalPort, external, lifetimeSeconds }: MapRequest,
    signal: AbortSignal,
  ): Promise<Answer<"map">> {
    const bytes = encodeMapRequest({ internalPort, externalPort: external.port, lifetimeSeconds });
    const pick = (answer: NatPmpAnswer) =>
      answer.kind === "map" && answer.internalPort === internalPort ? answer : undefined;
    const answer = await this.#ask("map", bytes, pick, signal);
    if (!answer) throw new PortMapRefusedError("no answer to a request for a mapping");
    if (lifetimeSeconds > 0 && (answer.lifetimeSeconds === 0 || answer.externalPort === 0)) {
      throw new PortMapRefusedError("an empty mapping was granted");
    }
    return answer;
  }

  /** `pick`: the answer that is waited for, without the errors. */
  async #ask<A extends Answer<Kind>>(
    kind: A["kind"],
    bytes: Uint8Array,
    pick: (answer: NatPmpAnswer) => A | undefined,
    signal: AbortSignal,
  ): Promise<A | undefined> {
    const to: Endpoint = { ip: this.#access.gateway, port: NATPMP_PORT };
    const read = ({ bytes, from }: Datagram) => {
      if (!equalEndpoints(from, to)) return undefined;
      const answer = decodeNatPmpAnswer(bytes);
      const error = answer.kind === "error" && answer.to === kind ? answer.result : undefined;
      const picked = pick(answer);
      return error || picked ? { error, picked } : undefined;
    };
    const question = { requests: [{ bytes, to }], pausesMs: ASK_PAUSES_MS, read };
    const found = await exchange(this.#access, question, signal);
    if (found?.error) throw new PortMapRefusedError(natPmpResultText(found.error));
    if (!found?.picked) return undefined;
    const { epochSeconds } = found.picked;
    this.#epoch = { epochSeconds, atMs: this.#access.clock.nowMs() };
    return found.picked;
  }
}
