/** A member of the overlay that keeps to the protocols and means harm. */
import type { Endpoint, Ip } from "../../lib/addr.ts";
import { CoordClient } from "../../lib/coord/client.ts";
import {
  boxKey,
  decodeMessage,
  type DiscoMessage,
  encodeMessage,
  EPOCH_LENGTH,
  type Extension,
  open,
  type Ping,
  readEnvelope,
  seal,
  SESSION_LENGTH,
} from "../../lib/disco/mod.ts";
import { signer } from "../../lib/ed25519.ts";
import { keyBytes } from "../../lib/keys.ts";
import {
  type Packet,
  type SimCoordinator,
  type SimHost,
  simIdentity,
  type SimNode,
  type Station,
  type World,
} from "./world/mod.ts";

/** Identities of the hostile, apart from those of the daemons. */
const FIRST_IDENTITY = 60;
const NO_END = new AbortController().signal;

export class HostileMember {
  readonly host: SimHost;
  readonly identity;
  readonly #world: World;
  readonly #coord: CoordClient;
  readonly #keys = new Map<SimNode, Uint8Array>();

  private constructor(world: World, host: SimHost, n: number, coord: CoordClient) {
    this.#world = world;
    this.host = host;
    this.identity = simIdentity(FIRST_IDENTITY + n);
    this.#coord = coord;
  }

  /** Registers; what it tells of itself is up to the test. */
  static async join(world: World, coordinator: SimCoordinator, n = 0): Promise<HostileMember> {
    const host = world.publicHost(`hostile-${n}`);
    const identity = simIdentity(FIRST_IDENTITY + n);
    const coord = new CoordClient({
      url: coordinator.url,
      identity: { nodeKey: identity.nodeKey, sign: await signer(identity.nodeSeed) },
      clock: host.clock,
      random: world.dice.bytes,
      http: host.openHttp(),
    });
    const member = new HostileMember(world, host, n, coord);
    const { discoKey } = identity;
    await member.#done(coord.register({ discoKey, nodeName: host.name }, NO_END));
    return member;
  }

  async claim(endpoints: readonly Endpoint[]): Promise<void> {
    const list = endpoints.map((endpoint) => ({ endpoint, source: "given" as const }));
    await this.#done(this.#coord.postEndpoints(list, NO_END));
  }

  /** By the coordinator; whatever it answers. */
  invite(to: SimNode, endpoints: Endpoint[]): void {
    const sealed = this.seal(to, { type: "call-me-maybe", endpoints });
    this.#coord.sendSignal(to.identity.discoKey, sealed, NO_END).catch(() => {});
  }

  /** Stays a member. */
  stay(): void {
    this.#coord.peers(undefined, NO_END).catch(() => {});
  }

  /** A ping that seems to come from somewhere; its length. */
  ping(from: Endpoint, to: Endpoint, node: SimNode, change: Partial<Ping> = {}): number {
    const { dice, internet } = this.#world;
    const nodeKey = keyBytes(this.identity.nodeKey);
    const ping = { type: "ping" as const, txId: dice.bytes(12), nodeKey, padding: 0, ...change };
    const bytes = this.seal(node, ping);
    internet.transmit({ kind: "udp", from, to, ttl: 64, bytes });
    return bytes.length;
  }

  /** What the node has said of its run, in an answer to a ping from there. */
  async epochOf(node: SimNode, at: Endpoint): Promise<Uint8Array> {
    const { dice } = this.#world;
    const own = new Victim(this.#world);
    const extension = extensionOf(dice.bytes, new Uint8Array(EPOCH_LENGTH));
    this.ping({ ip: own.ip, port: 1 }, at, node, { extension, padTo: 500 });
    await this.#world.run(1_000);
    for (const bytes of own.datagrams) {
      const message = decodeMessage(open(readEnvelope(bytes)!, this.#keys.get(node)!)!);
      if (message.type === "pong") return message.extension!.epoch;
    }
    throw new Error("no pong");
  }

  seal(to: SimNode, message: DiscoMessage): Uint8Array {
    const { discoPrivate, discoKey } = this.identity;
    let key = this.#keys.get(to);
    if (!key) this.#keys.set(to, key = boxKey(discoPrivate, to.identity.discoKey));
    return seal(encodeMessage(message), discoKey, key, this.#world.dice.bytes);
  }

  async #done(call: Promise<unknown>): Promise<void> {
    let isDone = false;
    const ended = call.finally(() => isDone = true);
    await this.#world.until(() => isDone, 10_000);
    await ended;
  }
}

/** Of a ping to the run that has that epoch. */
export function extensionOf(random: (length: number) => Uint8Array, echo: Uint8Array): Extension {
  const [epoch, session] = [random(EPOCH_LENGTH), random(SESSION_LENGTH)];
  return { nominating: false, epoch, echo, session };
}

/** Somebody who has nothing to do with it, and counts what comes. */
export class Victim implements Station {
  readonly ip: Ip;
  packets = 0;
  bytes = 0;
  datagrams: Uint8Array[] = [];

  constructor(world: World) {
    this.ip = world.publicIp();
    world.internet.stations.set(this.ip, this);
  }

  receive(packet: Packet): void {
    this.packets++;
    if (packet.kind !== "udp") return;
    this.bytes += packet.bytes.length;
    this.datagrams.push(packet.bytes);
  }

  /** So many places there. */
  ports(count: number): Endpoint[] {
    return Array.from({ length: count }, (_, i) => ({ ip: this.ip, port: 2_000 + i }));
  }

  /** What came since the last look. */
  take(): { packets: number; bytes: number } {
    const { packets, bytes } = this;
    this.packets = this.bytes = 0;
    this.datagrams = [];
    return { packets, bytes };
  }
}
