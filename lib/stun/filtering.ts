/** How a NAT filters, found out with a server that answers from elsewhere (RFC 5780 section 4.4). */
import type { Endpoint } from "../addr.ts";
import type { Change } from "./attributes.ts";
import type { StunAnswer, StunClient, StunServer } from "./exchange.ts";
import type { FilteringSighting } from "./nat.ts";

export interface FilteringTestOptions {
  /** On a socket that has sent nothing yet: what has been sent to is let in. */
  fresh: StunClient;
  /** On another socket: asks the server's other places whether they answer at all. */
  asking: StunClient;
  server: StunServer;
  /** Where else the server says that it can answer from: {@link StunAnswer.other}. */
  other: Endpoint;
  /** How long an answer is waited for, twice. */
  timeoutMs: number;
  signal?: AbortSignal;
}

export interface FilteringTest {
  sighting: FilteringSighting;
  /** What the other places saw of `asking`: they tell how the NAT maps, too. */
  answers: StunAnswer[];
}

interface Elsewhere {
  change: Change;
  place: StunServer;
}

/** That nothing came counts only from a place that answers when it is asked directly. */
export async function testFiltering(options: FilteringTestOptions): Promise<FilteringTest> {
  const { asking, server, other, timeoutMs, signal } = options;
  const { otherIp, otherPort } = elsewhere(server, other);
  const places = [otherIp, otherPort].flatMap((e) => e ? [e.place] : []);
  const [ipPasses, portPasses] = await Promise.all([
    otherIp && passes(otherIp.change, options),
    otherPort && passes(otherPort.change, options),
  ]);
  // Not before: some firewalls let in whom any socket of the host has sent to.
  const answers = await asking.query(places, { timeoutMs, ...(signal ? { signal } : {}) });
  const tells = (passes: boolean | undefined, at: Elsewhere | undefined) =>
    passes || (passes === false && answers.some(({ server }) => server === at?.place));
  return {
    sighting: {
      ...(tells(ipPasses, otherIp) ? { fromOtherIp: ipPasses! } : {}),
      ...(tells(portPasses, otherPort) ? { fromOtherPort: portPasses! } : {}),
    },
    answers,
  };
}

/** A server with two addresses and two ports has all four places (RFC 5780 section 6). */
function elsewhere(
  { name, endpoint: server }: StunServer,
  other: Endpoint,
): { otherIp?: Elsewhere; otherPort?: Elsewhere } {
  const port = server.port !== other.port;
  const portPlace = { name, endpoint: { ip: server.ip, port: other.port } };
  return {
    ...(server.ip === other.ip
      ? {}
      : { otherIp: { change: { ip: true, port }, place: { name, endpoint: other } } }),
    ...(port ? { otherPort: { change: { ip: false, port }, place: portPlace } } : {}),
  };
}

/** Undefined where the server answers otherwise than it was asked to: it does not know how. */
async function passes(
  change: Change,
  { fresh, server, timeoutMs, signal }: FilteringTestOptions,
): Promise<boolean | undefined> {
  const options = { timeoutMs, change, ...(signal ? { signal } : {}) };
  const [answer] = await fresh.query([server], options);
  if (!answer?.from) return false;
  const { ip, port } = answer.from;
  const isAsAsked = (ip !== server.endpoint.ip) === change.ip &&
    (port !== server.endpoint.port) === change.port;
  return isAsAsked ? true : undefined;
}
