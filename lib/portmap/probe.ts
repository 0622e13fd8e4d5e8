/** What a gateway can do, without making a mapping. */
import type { Ip } from "../addr.ts";
import { type Clock, type Random, systemClock, systemRandom } from "../edges.ts";
import { type Attempt, discoverAll } from "./establish.ts";
import { type PortMapNet, systemNet } from "./net.ts";
import { type PortMapProtocol, PROTOCOLS } from "./protocol.ts";

export interface ProbeOptions {
  /** The router of the default route: see `findGateway`. */
  gateway: Ip;
  /** This host's address on the way there. */
  local: Ip;
  net?: PortMapNet;
  clock?: Clock;
  random?: Random;
  signal?: AbortSignal;
}

export type ProtocolProbe =
  /** `externalIp`: PCP tells it only with a mapping. */
  | { answers: true; externalIp: Ip | undefined }
  /** "no answer", or why the gateway refuses. */
  | { answers: false; why: string };

/** Which protocols the gateway speaks; takes up to 2.5 s. Throws the signal's reason. */
export async function probePortMapping(
  options: ProbeOptions,
): Promise<Record<PortMapProtocol, ProtocolProbe>> {
  const { gateway, local, signal = new AbortController().signal } = options;
  const { net = systemNet, clock = systemClock, random = systemRandom } = options;
  const { attempts, ends } = discoverAll(
    { gateway, local, net, clock, random },
    PROTOCOLS,
    signal,
  );
  await Promise.all(ends.values());
  signal.throwIfAborted();
  const result = (protocol: PortMapProtocol) => probeOf(attempts.get(protocol)!);
  return { pcp: result("pcp"), natpmp: result("natpmp"), upnp: result("upnp") };
}

function probeOf(attempt: Attempt): ProtocolProbe {
  switch (attempt.kind) {
    case "found":
      return { answers: true, externalIp: attempt.mapper.externalIp };
    case "failed":
      return { answers: false, why: attempt.why };
    case "asking":
      throw new Error("a probe that has not ended");
  }
}
