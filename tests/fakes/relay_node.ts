/**
 * A node that knows nothing but relays, as a program, so that it can run in a namespace of its own:
 *
 *     relay_node.ts COORDINATOR_URL PORT
 *
 * Takes commands on stdin and tells events on stdout, each a line of JSON. See RelayNode beside it.
 */
import { formatEndpoint, parseEndpoint, parseIp } from "../../lib/addr.ts";
import { CoordClient } from "../../lib/coord/client.ts";
import { publicKeyOf, signer } from "../../lib/ed25519.ts";
import { systemClock, systemRandom } from "../../lib/edges.ts";
import { errorText } from "../../lib/errors.ts";
import { discoKeyFromBytes, type NodeKey, nodeKeyFromBytes } from "../../lib/keys.ts";
import { textLog } from "../../lib/log.ts";
import { RelayClient, type RelayPath } from "../../lib/relay/mod.ts";
import { isStun } from "../../lib/stun/mod.ts";

export type NodeCommand =
  | { do: "measure" }
  | { do: "allocate"; peer: NodeKey }
  | { do: "send"; text: string; to?: string }
  | { do: "blast"; bytes: number; ms: number; perMs?: number }
  | { do: "close" };

export type NodeEvent =
  | { event: "ready"; nodeKey: NodeKey; tunnelIp: string }
  | { event: "measured"; latencies: Record<string, number>; udpWorks?: boolean }
  | { event: "allocated"; endpoint: string; kind: string; relay: string; ms: number }
  | { event: "received"; text: string; from: string }
  | { event: "counted"; packets: number; bytes: number; ms: number }
  | { event: "blasted"; packets: number }
  | { event: "lost"; reason: string }
  | { event: "failed"; error: string };

/** Datagrams of a blast begin so; they are counted and not told one by one. */
const BLAST = 0x20;
const QUIET_MS = 500;

const never = new AbortController().signal;
const tell = (event: NodeEvent) =>
  Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(event) + "\n"));

async function run(url: string, nodePort: number): Promise<void> {
  const seed = systemRandom(32);
  const nodeKey = nodeKeyFromBytes(publicKeyOf(seed));
  const sign = await signer(seed);
  const edges = { clock: systemClock, random: systemRandom };
  const coordinator = new CoordClient({ url, identity: { nodeKey, sign }, ...edges });
  const discoKey = discoKeyFromBytes(systemRandom(32));
  const { tunnelIp } = await coordinator.register({ discoKey, nodeName: "" }, never);
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: nodePort });
  const send = (bytes: Uint8Array, to: string) => {
    const { ip, port } = parseEndpoint(to);
    return socket.send(bytes, { transport: "udp", hostname: ip, port });
  };
  let path: RelayPath | undefined;
  const relays = new RelayClient({
    nodeKey,
    sign,
    coordinator,
    send: (bytes, to) => void send(bytes, formatEndpoint(to)).catch(() => {}),
    nodePort,
    ...edges,
    log: textLog(
      (line) => Deno.stderr.writeSync(new TextEncoder().encode(line)),
      "debug",
      systemClock,
    ),
    onLost: (lost, reason) => {
      if (path === lost) path = undefined;
      tell({ event: "lost", reason });
    },
  });
  void receive(socket, relays);
  tell({ event: "ready", nodeKey, tunnelIp: tunnelIp.ip });

  const perform = async (command: NodeCommand): Promise<void> => {
    switch (command.do) {
      case "measure": {
        const latencies = Object.fromEntries(await relays.measure(never));
        const { udpWorks } = relays;
        return void tell({
          event: "measured",
          latencies,
          ...(udpWorks === undefined ? {} : { udpWorks }),
        });
      }
      case "allocate": {
        const startMs = performance.now();
        path = await relays.allocate(command.peer, never);
        return void tell({
          event: "allocated",
          endpoint: formatEndpoint(path.endpoint),
          kind: path.kind,
          relay: path.relayKey,
          ms: Math.round(performance.now() - startMs),
        });
      }
      case "send":
        await send(
          new TextEncoder().encode(command.text),
          command.to ?? formatEndpoint(path!.endpoint),
        );
        return;
      case "blast":
        return await blast(command, (bytes) => send(bytes, formatEndpoint(path!.endpoint)));
      case "close":
        return await path![Symbol.asyncDispose]();
    }
  };
  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  let rest = "";
  for await (const text of lines) {
    const complete = (rest + text).split("\n");
    rest = complete.pop()!;
    for (const line of complete) {
      perform(JSON.parse(line)).catch((error) =>
        tell({ event: "failed", error: errorText(error) })
      );
    }
  }
}

async function receive(socket: Deno.DatagramConn, relays: RelayClient): Promise<void> {
  const buffer = new Uint8Array(65_536);
  let counted = { packets: 0, bytes: 0, firstMs: 0, lastMs: 0 };
  let quiet: ReturnType<typeof setTimeout> | undefined;
  while (true) {
    const [bytes, address] = await socket.receive(buffer);
    const { hostname, port } = address as Deno.NetAddr;
    const from = { ip: parseIp(hostname), port };
    if (bytes[0] === BLAST && bytes.length > 100) {
      const nowMs = performance.now();
      if (counted.packets === 0) counted.firstMs = nowMs;
      counted.packets++;
      counted.bytes += bytes.length;
      counted.lastMs = nowMs;
      quiet ??= setTimeout(function end() {
        if (performance.now() - counted.lastMs < QUIET_MS) {
          quiet = setTimeout(end, QUIET_MS);
          return;
        }
        const { packets, bytes, firstMs, lastMs } = counted;
        tell({ event: "counted", packets, bytes, ms: lastMs - firstMs });
        counted = { packets: 0, bytes: 0, firstMs: 0, lastMs: 0 };
        quiet = undefined;
      }, QUIET_MS);
    } else if (isStun(bytes)) {
      relays.handle(bytes.slice(), from);
    } else {
      tell({
        event: "received",
        text: new TextDecoder().decode(bytes),
        from: formatEndpoint(from),
      });
    }
  }
}

async function blast(
  { bytes, ms, perMs }: NodeCommand & { do: "blast" },
  send: (bytes: Uint8Array) => Promise<number>,
): Promise<void> {
  const datagram = new Uint8Array(bytes).fill(BLAST);
  const startMs = performance.now();
  let packets = 0;
  while (true) {
    const elapsedMs = performance.now() - startMs;
    if (elapsedMs >= ms) break;
    if (perMs !== undefined && packets >= elapsedMs * perMs) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    await send(datagram).catch(() => {});
    packets++;
  }
  tell({ event: "blasted", packets });
}

if (import.meta.main) await run(Deno.args[0]!, Number(Deno.args[1]));
