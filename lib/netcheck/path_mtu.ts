/**
 * How large datagrams get to a STUN server uncut: where routers drop larger ones and do not say so, some
 * connections stand still and others do not.
 */
import { type Endpoint, type Family, familyOf } from "../addr.ts";
import { systemClock, systemRandom } from "../edges.ts";
import { endpointOf, Poller, sockAddrOf, UdpSocket } from "../linux/mod.ts";
import { NetlinkError, RtNetlink } from "../netlink.ts";
import { StunClient, type StunServer } from "../stun/mod.ts";
import type { PathMtuReport } from "./report.ts";

/** Of IP and UDP. */
const HEADER_BYTES: Record<Family, number> = { 4: 28, 6: 48 };
const ETHERNET_MTU = 1500;
/** More than networks carry, but for loopback. */
const JUMBO_MTU = 9000;
/** As STUN messages are. */
const STEP = 4;
/** Every request fits. */
const LEAST = 128;
const AT_ONCE = 6;
const ROUND_MS = 900;
const FIRST_PAUSE_MS = 150;
/** What coordinators of version 0.1 read at most: that says nothing of the way. */
const SERVERS_BUFFER = 1024;

export interface PathMtuOptions {
  server: StunServer;
  /** The coordinator's, which reads requests of any length. */
  isOurs: boolean;
  /** For it all. */
  leftMs: () => number;
  signal: AbortSignal;
}

/** Undefined where it is as wide as the route says, and where that cannot be told. */
export async function findNarrowPath(options: PathMtuOptions): Promise<PathMtuReport | undefined> {
  const { isOurs, server: { endpoint } } = options;
  const routeMtu = mtuOfRoute(endpoint);
  if (routeMtu === undefined) return undefined;
  const headerBytes = HEADER_BYTES[familyOf(endpoint.ip)];
  const widest = Math.floor((routeMtu - headerBytes) / STEP) * STEP;
  await using poller = new Poller();
  using uncut = new PaddedAsker(options, poller, false);
  if (await uncut.carries([widest]) === widest) return undefined;
  using cut = new PaddedAsker(options, poller, true);
  if (await cut.carries([LEAST]) === undefined) return undefined; // it has stopped to answer
  const isTakenInPieces = await cut.carries([widest]) === widest;
  const carried = await search(uncut, widest);
  if (carried === undefined) return undefined;
  if (!isTakenInPieces && !(isOurs && carried !== SERVERS_BUFFER)) return undefined;
  const pathMtu = carried + headerBytes;
  // Where a router says so, the kernel knows by now.
  if (mtuOfRoute(endpoint)! <= pathMtu) return undefined;
  return { server: options.server.name, pathMtu, routeMtu };
}

/** The largest size that is carried; undefined where time was too short. */
async function search(asker: PaddedAsker, widest: number): Promise<number | undefined> {
  let [low, high] = [LEAST, widest];
  while (high - low > STEP) {
    if (!asker.hasTime) return undefined;
    const part = (high - low) / (AT_ONCE + 1);
    const between = Array.from({ length: AT_ONCE }, (_, i) => low + (i + 1) * part);
    const sizes = [...new Set(between.map((size) => Math.round(size / STEP) * STEP))]
      .filter((size) => size > low && size < high);
    low = await asker.carries(sizes) ?? low;
    high = sizes.find((size) => size > low) ?? high;
  }
  return low;
}

function mtuOfRoute({ ip }: Endpoint): number | undefined {
  using rtnl = RtNetlink.open();
  try {
    const { mtu, device } = rtnl.routeTo(ip);
    return Math.min(mtu ?? rtnl.link(device ?? 0)?.mtu ?? ETHERNET_MTU, JUMBO_MTU);
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}

/** Sends padded requests, which routers may cut up or may not. */
class PaddedAsker implements Disposable {
  readonly #options: PathMtuOptions;
  readonly #socket: UdpSocket;
  readonly #client: StunClient;

  constructor(options: PathMtuOptions, poller: Poller, allowFragments: boolean) {
    this.#options = options;
    const family = familyOf(options.server.endpoint.ip);
    this.#socket = UdpSocket.open({ port: 0, family, allowFragments }, poller, (bytes, source) => {
      this.#client.handle(bytes.slice(), endpointOf(source));
    });
    const send = (bytes: Uint8Array, to: Endpoint) => {
      this.#socket.send(bytes, sockAddrOf(to));
    };
    this.#client = new StunClient({ send, clock: systemClock, random: systemRandom });
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  get hasTime(): boolean {
    return this.#options.leftMs() >= ROUND_MS;
  }

  /** The largest of these datagrams that is answered. */
  async carries(sizes: readonly number[]): Promise<number | undefined> {
    const { server, signal, leftMs } = this.#options;
    const timing = {
      timeoutMs: Math.min(ROUND_MS, leftMs()),
      firstPauseMs: FIRST_PAUSE_MS,
      signal,
    };
    const answered = await Promise.all(
      sizes.map(async (padTo) => {
        const answers = await this.#client.query([server], { ...timing, padTo, firstOnly: true });
        return answers.length > 0 ? [padTo] : [];
      }),
    );
    return answered.flat().at(-1);
  }
}
