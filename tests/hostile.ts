/** What strangers on the network can do to nodes: they see all packets, and send what they like. */
import { type Endpoint, formatEndpoint, ipFromBytes } from "../lib/addr.ts";
import { concatBytes, Reader } from "../lib/bytes.ts";
import { encodeGre } from "./gre.ts";
import { systemRandom } from "../lib/edges.ts";
import type { Host, Lab, LabNode, Nat } from "./lab/mod.ts";
import { encodeError } from "../lib/relay/messages.ts";
import { answerBinding, encodeBindingRequest } from "../lib/stun/binding.ts";

const PCAP_HEADER = 24;
const PCAP_RECORD = 16;
const ETHERNET_HEADER = 14;
const IPPROTO_UDP = 17;

export interface Captured {
  from: Endpoint;
  to: Endpoint;
  payload: Uint8Array;
}

/** All UDP that passes a node, as it passes. */
export class Capture {
  readonly packets: Captured[] = [];
  readonly ended: Promise<unknown>;
  readonly #process: Deno.ChildProcess;
  readonly #onPacket: (packet: Captured) => void;
  readonly #listening = Promise.withResolvers<void>();

  /** Resolves when it listens. */
  static async start(
    node: LabNode,
    ifname: string,
    onPacket: (packet: Captured) => void,
  ): Promise<Capture> {
    const capture = new Capture(node, ifname, onPacket);
    await capture.#listening.promise;
    return capture;
  }

  private constructor(node: LabNode, ifname: string, onPacket: (packet: Captured) => void) {
    this.#onPacket = onPacket;
    // As root: its own user is not there on every machine.
    const args = ["-Z", "root", "-i", ifname, "-w", "-", "-U", "--immediate-mode", "udp"];
    this.#process = node.spawn("tcpdump", args, { stdout: "piped", stderr: "piped" });
    const { stdout, stderr } = this.#process;
    this.ended = Promise.all([this.#read(stdout), this.#awaitListening(stderr)]);
  }

  async #awaitListening(stderr: ReadableStream<Uint8Array>): Promise<void> {
    let said = "";
    for await (const text of stderr.pipeThrough(new TextDecoderStream())) {
      said += text;
      if (said.includes("listening on")) this.#listening.resolve();
    }
    this.#listening.reject(new Error(`tcpdump ended: ${said}`));
  }

  stop(): void {
    this.#process.kill("SIGTERM");
  }

  async #read(stdout: ReadableStream<Uint8Array>): Promise<void> {
    let rest: Uint8Array = new Uint8Array();
    let hasHeader = false;
    for await (const part of stdout) {
      rest = concatBytes(rest, part);
      if (!hasHeader && rest.length >= PCAP_HEADER) {
        rest = rest.subarray(PCAP_HEADER);
        hasHeader = true;
      }
      while (hasHeader && rest.length >= PCAP_RECORD) {
        const length = new Reader(rest, "host").skip(8).u32();
        if (rest.length < PCAP_RECORD + length) break;
        this.#take(rest.slice(PCAP_RECORD, PCAP_RECORD + length));
        rest = rest.subarray(PCAP_RECORD + length);
      }
    }
  }

  #take(frame: Uint8Array): void {
    const packet = decodeFrame(frame);
    if (!packet) return;
    this.packets.push(packet);
    this.#onPacket(packet);
  }
}

/** Ethernet, IPv4 and UDP. */
function decodeFrame(frame: Uint8Array): Captured | undefined {
  const ip = frame.subarray(ETHERNET_HEADER);
  const headerLength = (ip[0]! & 0xf) * 4;
  if (ip[0]! >> 4 !== 4 || ip[9] !== IPPROTO_UDP || ip.length < headerLength + 8) return undefined;
  const udp = new Reader(ip.subarray(headerLength), "network");
  const [source, destination, length] = [udp.u16(), udp.u16(), udp.u16()];
  udp.skip(2);
  return {
    from: { ip: ipFromBytes(ip.subarray(12, 16)), port: source },
    to: { ip: ipFromBytes(ip.subarray(16, 20)), port: destination },
    payload: udp.bytes(Math.min(length - 8, udp.left)).slice(),
  };
}

/** A stranger with some sockets, who counts what comes back. */
export class Attacker implements Disposable {
  readonly host: Host;
  sentPackets = 0;
  sentBytes = 0;
  receivedBytes = 0;
  /** By whom it was answered. */
  readonly answeredBy = new Set<string>();
  readonly #sockets: Deno.DatagramConn[];

  constructor(host: Host, ports: readonly number[]) {
    this.host = host;
    this.#sockets = ports.map((port) =>
      host.within(() => Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port }))
    );
    for (const socket of this.#sockets) void this.#count(socket);
  }

  /** From each of its ports. */
  async send(payload: Uint8Array, to: Endpoint): Promise<void> {
    await Promise.all(this.#sockets.map(async (socket) => {
      this.sentPackets++;
      this.sentBytes += payload.length;
      // A full queue is no failure of the attack.
      await socket.send(payload, { transport: "udp", hostname: to.ip, port: to.port }).catch(
        () => {},
      );
    }));
  }

  async #count(socket: Deno.DatagramConn): Promise<void> {
    try {
      for await (const [bytes, { hostname, port }] of datagrams(socket)) {
        this.receivedBytes += bytes.length;
        this.answeredBy.add(`${hostname}:${port}`);
      }
    } catch {
      // closed
    }
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.close();
  }
}

function datagrams(socket: Deno.DatagramConn): AsyncIterable<[Uint8Array, Deno.NetAddr]> {
  return socket as unknown as AsyncIterable<[Uint8Array, Deno.NetAddr]>;
}

const KEY_AT = 6;
const KEY_LENGTH = 32;
export const isDisco = ({ payload }: Captured) => payload[0] === 0x54 && payload[1] === 0x53;

/** What can be made of a captured packet without any key: where each is to go. */
export function variants(
  { from, payload }: Captured,
  discoKeys: readonly Uint8Array[],
  targets: readonly Endpoint[],
): { to: Endpoint; payload: Uint8Array }[] {
  const flipped = payload.slice();
  const at = Math.floor(Math.random() * payload.length);
  flipped[at]! ^= 1 << Math.floor(Math.random() * 8);
  const made = [
    payload,
    flipped,
    payload.subarray(0, Math.floor(Math.random() * payload.length)),
    concatBytes(payload, new Uint8Array([1, 2, 3, 4])),
  ];
  if (isDisco({ payload } as Captured)) {
    // Under another member's name: a box opens with the keys of both its ends.
    for (const key of discoKeys) {
      const renamed = payload.slice();
      renamed.set(key, KEY_AT);
      made.push(renamed);
    }
  }
  const places = new Map([from, ...targets].map((to) => [formatEndpoint(to), to]));
  return [...places.values()].flatMap((to) => made.map((bytes) => ({ to, payload: bytes })));
}

/** The disco keys that senders show. */
export function discoKeysIn(packets: readonly Captured[]): Uint8Array[] {
  const keys = packets.filter(isDisco).map(({ payload }) =>
    payload.slice(KEY_AT, KEY_AT + KEY_LENGTH)
  );
  return [...new Map(keys.map((key) => [key.join(), key])).values()];
}

/** Not from any packet: answers that nobody asked for, keys that nobody has. */
export function forgeries(discoKeys: readonly Uint8Array[]): Uint8Array[] {
  const victim = { ip: "192.0.2.66", port: 6 } as Endpoint;
  const inner = new Uint8Array(40).fill(0x45);
  return [
    answerBinding(encodeBindingRequest(systemRandom(12)), victim)!,
    encodeError({ txId: new Uint8Array(12), code: 437, nonce: systemRandom(16) }),
    encodeError({ txId: systemRandom(12), code: 401, nonce: systemRandom(16) }),
    encodeGre(inner, 0xdeadbeef)!,
    encodeGre(inner, undefined)!,
    new Uint8Array(0),
    systemRandom(1_200),
    ...discoKeys.map((key) =>
      new Uint8Array([0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac, ...key, ...systemRandom(102)])
    ),
  ];
}

const ATTACK_PORTS = [40_001, 40_002];
/** More would say more about this machine than about the programs. */
const PACKETS_PER_SECOND = 10;
const KEYS_AT_ONCE = 3;

/**
 * Two strangers, one of them behind the same NAT as others, who see all UDP that passes the
 * internet. Some of it they send again, at once: as it was, changed, cut, back to where it came
 * from, and under other names; and what they make up, to all ports that they have seen.
 */
export class Attack implements AsyncDisposable {
  readonly attackers: readonly Attacker[];
  #capture!: Capture;
  readonly #places = new Map<string, Endpoint>();
  readonly #sent: Promise<void>[] = [];
  #nextMs = 0;

  /** `inside`: the NAT that one of them is behind. */
  static async start(lab: Lab, inside: Nat): Promise<Attack> {
    const attack = new Attack([lab.publicHost("mallory"), lab.host("eve", { behind: inside })]);
    const take = (packet: Captured) => attack.#take(packet);
    attack.#capture = await Capture.start(lab.internet, "internet", take);
    return attack;
  }

  private constructor(hosts: readonly Host[]) {
    this.attackers = hosts.map((host) => new Attacker(host, ATTACK_PORTS));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#capture.stop();
    await this.#capture.ended;
    await Promise.all(this.#sent);
    for (const attacker of this.attackers) attacker[Symbol.dispose]();
  }

  #take(packet: Captured): void {
    if ([packet.from.port, packet.to.port].some((port) => ATTACK_PORTS.includes(port))) return;
    this.#places.set(formatEndpoint(packet.to), packet.to);
    const nowMs = performance.now();
    if (nowMs < this.#nextMs) return;
    this.#nextMs = nowMs + 1000 / PACKETS_PER_SECOND;
    this.#sent.push(this.#send(packet));
  }

  async #send(packet: Captured): Promise<void> {
    const keys = discoKeysIn(this.#capture.packets.slice(-100)).slice(0, KEYS_AT_ONCE);
    const made = variants(packet, keys, [packet.to]);
    const places = [...this.#places.values()];
    const place = places[Math.floor(Math.random() * places.length)]!;
    for (const payload of forgeries(keys)) made.push({ to: place, payload });
    for (const { to, payload } of made) {
      await Promise.all(this.attackers.map((attacker) => attacker.send(payload, to)));
    }
  }
}
