/** The relay of gretun-coord: its flags, and a relay server made by them. */
import { isUnspecified, parseIp } from "../../addr.ts";
import type { Clock, Log, Random } from "../../edges.ts";
import { errorText, GretunError, UsageError } from "../../errors.ts";
import { hasCapability } from "../../linux/mod.ts";
import { type NodeKey, nodeKeyFromBase64 } from "../../keys.ts";
import { KernelForwarding, RelayServer } from "../../relay/serve.ts";
import type { ListenAddress } from "../../listen.ts";
import { parseListen } from "../listen.ts";
import { flag, type FlagValues } from "../flags.ts";

/** 100 Mbit/s: one pair does not take all of a relay that forwards in user space. */
const DEFAULT_RATE = 12_500_000;

export const RELAY_FLAGS = {
  "relay-listen": flag.text("HOST:PORT", "UDP port of the relay, or off", { default: ":3479" }),
  "relay-advertise": flag.text(
    "HOST:PORT",
    "relay that nodes are told of (default: this host, as they reach it)",
  ),
  "relay-ports": flag.text("FROM-TO", "UDP ports that the relay forwards between", {
    default: "49152-65535",
  }),
  "relay-rate": flag.integer(
    "BYTES",
    "bytes a second that the relay forwards from one node to another; 0: no limit",
    { min: 0, max: Number.MAX_SAFE_INTEGER, default: DEFAULT_RATE },
  ),
  "relay-mode": flag.choice(
    ["auto", "kernel", "user"],
    "auto",
    "who forwards: the kernel where nf_tables can be had, or this program",
  ),
  "relay-key": flag.list("KEY", "key of another relay that may register here, repeatable"),
  "relay-only": flag.on("be a relay, registered with --coordinator"),
  coordinator: flag.text("URL", "with --relay-only: whose relay to be"),
} as const;

type RelayFlags = FlagValues<typeof RELAY_FLAGS>;

export interface RelaySettings {
  listen: ListenAddress;
  ports: { from: number; to: number };
  bytesPerSecond: number;
  mode: string;
  /** "host:port"; the host is empty where nodes know it themselves. */
  advertise: string;
}

/** Undefined when the relay is off. Throws `UsageError`. */
export function relaySettings(flags: RelayFlags): RelaySettings | undefined {
  if (flags["relay-listen"] === "off") return undefined;
  const listen = parseListen("relay-listen", flags["relay-listen"]);
  const advertise = flags["relay-advertise"] ?? `:${listen.port}`;
  parseListen("relay-advertise", advertise);
  return {
    listen,
    ports: parsePorts(flags["relay-ports"]),
    bytesPerSecond: flags["relay-rate"],
    mode: flags["relay-mode"],
    advertise,
  };
}

function parsePorts(text: string): { from: number; to: number } {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(text);
  const [from, to] = [Number(match?.[1]), Number(match?.[2])];
  if (match && from >= 1 && from < to && to <= 65535) return { from, to };
  throw new UsageError(
    `--relay-ports ${JSON.stringify(text)} is no range of ports`,
    "Give the first and the last one, such as 49152-65535",
  );
}

/** Throws `UsageError`. */
export function relayKeys(texts: readonly string[]): NodeKey[] {
  return texts.map((text) => {
    try {
      return nodeKeyFromBase64(text);
    } catch {
      throw new UsageError(
        `--relay-key ${JSON.stringify(text)} is no key`,
        "Give what the relay logs as its key when it starts: base64 of 32 bytes",
      );
    }
  });
}

/** A relay and what forwards for it; goes as one. */
export interface OpenRelay extends Disposable {
  server: RelayServer;
}

/** Throws `GretunError`. */
export function openRelay(
  settings: RelaySettings,
  keys: { relayKey: NodeKey; grantKey: () => NodeKey | undefined },
  edges: { clock: Clock; random: Random; log: Log; wallMs?: () => number },
): OpenRelay {
  const { ports, bytesPerSecond, listen: { hostname, port } } = settings;
  using stack = new DisposableStack();
  const kernel = openKernel(settings, edges.log);
  if (kernel) stack.use(kernel);
  try {
    const server = stack.use(
      new RelayServer({
        hostname,
        port,
        ports,
        bytesPerSecond,
        ...keys,
        ...edges,
        ...(kernel ? { kernel } : {}),
      }),
    );
    const all = stack.move();
    return { server, [Symbol.dispose]: () => all.dispose() };
  } catch (cause) {
    throw new GretunError(
      `cannot relay on ${hostname}:${port}: ${errorText(cause)}`,
      "Choose another address with --relay-listen, or turn it off with --relay-listen off",
      { cause },
    );
  }
}

/** Undefined where this program is to forward. Throws `GretunError` where it must not. */
function openKernel(
  { mode, listen, bytesPerSecond }: RelaySettings,
  log: Log,
): KernelForwarding | undefined {
  if (mode === "user") return undefined;
  if (mode === "auto" && !hasCapability("CAP_NET_ADMIN")) {
    log.info("this program forwards what is relayed", { reason: "no CAP_NET_ADMIN" });
    return undefined;
  }
  try {
    const { hostname, port } = listen;
    const isOneAddress = /^[\d.]+$/.test(hostname) && !isUnspecified(parseIp(hostname));
    const kernel = new KernelForwarding({
      name: `gretun-relay-${port}`,
      bytesPerSecond,
      // As the sockets have it, which are bound to it.
      ...(isOneAddress ? { sourceOf: () => parseIp(hostname) } : {}),
    });
    log.info("the kernel forwards what is relayed over IPv4");
    return kernel;
  } catch (error) {
    if (mode === "kernel") {
      throw new GretunError(
        `the kernel cannot forward for the relay: ${errorText(error)}`,
        "Run as root on Linux 5.12 or newer with nf_tables, or with --relay-mode auto",
        { cause: error },
      );
    }
    log.info("this program forwards what is relayed", { reason: errorText(error) });
    return undefined;
  }
}
