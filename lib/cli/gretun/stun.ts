/** `gretun stun`: this host's address as STUN servers see it, and how its NAT maps. */
import { type Endpoint, type Family, familyOf, formatEndpoint, parseIp } from "../../addr.ts";
import { systemClock, systemRandom, unlessAborted } from "../../edges.ts";
import { errorText, GretunError, InterruptedError } from "../../errors.ts";
import {
  mappingBehaviour,
  resolveServers,
  type StunAnswer,
  StunClient,
  type StunServer,
} from "../../stun/mod.ts";
import { type Command, type CommandIo, EXIT_OK } from "../command.ts";
import { flag, flagsHelp, parseFlags } from "../flags.ts";

export const DEFAULT_STUN_SERVERS = [
  "stun.l.google.com:19302",
  "stun1.l.google.com:19302",
  "stun.cloudflare.com:3478",
];
/** How long the first answer waits for others, which only tell how the NAT maps. */
const GRACE_MS = 1000;

const FLAGS = {
  server: flag.list(
    "HOST:PORT",
    `STUN servers, repeatable (default ${DEFAULT_STUN_SERVERS.join(",")})`,
  ),
  timeout: flag.duration("TIME", "overall limit", { default: 5000 }),
  port: flag.integer("PORT", "local UDP port to ask from (default a free one)", {
    min: 1,
    max: 65535,
  }),
  json: flag.on("JSON on standard output"),
} as const;

const NOTE = `With answers of two servers, or of two ports of one, it also tells how the NAT maps
(RFC 4787): peers can only reach an endpoint-independent mapping directly.
`;

export const command: Command = {
  summary: "show this host's address as STUN servers see it",
  help: () => `Usage: gretun stun [flags]\n\n${flagsHelp(FLAGS)}\n\n${NOTE}`,
  run,
};

async function run(args: string[], io: CommandIo): Promise<number> {
  const flags = parseFlags(args, FLAGS);
  const names = flags.server.length > 0 ? flags.server : DEFAULT_STUN_SERVERS;
  const deadlineMs = systemClock.nowMs() + flags.timeout;
  const limit = AbortSignal.any([io.signal, AbortSignal.timeout(flags.timeout)]);
  try {
    const servers = ofOneFamily(await unlessAborted(resolveServers(names), limit));
    const timeoutMs = deadlineMs - systemClock.nowMs();
    const answers = await ask(servers, { port: flags.port, timeoutMs, signal: io.signal });
    io.stdout(flags.json ? formatJson(answers) : formatText(answers));
    return EXIT_OK;
  } catch (error) {
    if (io.signal.aborted) throw new InterruptedError("interrupted", "Run it again to ask anew");
    if (limit.aborted && error === limit.reason) throw noAnswer(names, "names do not resolve");
    throw error;
  }
}

/** At least one answer, the first one first; throws {@link GretunError}. */
async function ask(
  servers: StunServer[],
  options: { port: number | undefined; timeoutMs: number; signal: AbortSignal },
): Promise<StunAnswer[]> {
  const socket = open(familyOf(servers[0]!.endpoint.ip), options.port);
  try {
    const causes = new Set<string>();
    const send = (bytes: Uint8Array, { ip, port }: Endpoint) => {
      socket.send(bytes, { transport: "udp", hostname: ip, port })
        .catch((error) => causes.add(errorText(error)));
    };
    const client = new StunClient({ send, clock: systemClock, random: systemRandom });
    void receive(socket, client);
    const answers = await client.query(servers, { ...options, graceMs: GRACE_MS });
    if (answers.length > 0) return answers;
    const why = causes.size > 0 ? [...causes].join("; ") : "no datagram came back";
    throw noAnswer(servers.map(({ name }) => name), why);
  } finally {
    socket.close();
  }
}

/** One socket asks them all, for else the answers cannot be compared: those of IPv4 if there are any. */
function ofOneFamily(servers: StunServer[]): StunServer[] {
  const ipv4 = servers.filter(({ endpoint }) => familyOf(endpoint.ip) === 4);
  return ipv4.length > 0 ? ipv4 : servers;
}

function noAnswer(names: readonly string[], why: string): GretunError {
  return new GretunError(
    `no answer from ${names.join(", ")}: ${why}`,
    "Check that this host's network lets UDP to them through, or name others with --server",
  );
}

function open(family: Family, port: number | undefined): Deno.DatagramConn {
  const hostname = family === 4 ? "0.0.0.0" : "::";
  try {
    return Deno.listenDatagram({ transport: "udp", hostname, port: port ?? 0 });
  } catch (error) {
    const what = port === undefined ? "a UDP port" : `UDP port ${port}`;
    throw new GretunError(
      `cannot open ${what}: ${errorText(error)}`,
      "Choose another --port, or leave it out to get a free one",
      { cause: error },
    );
  }
}

/** Until the socket is closed. */
async function receive(socket: Deno.DatagramConn, client: StunClient): Promise<void> {
  for await (const [bytes, address] of socket) {
    const { hostname, port } = address as Deno.NetAddr;
    client.handle(bytes, { ip: parseIp(hostname), port });
  }
}

function formatText(answers: StunAnswer[]): string {
  const { addr, via, mapping } = result(answers);
  return `${addr}  (via ${via})\n` + (mapping ? `mapping: ${mapping}\n` : "");
}

function formatJson(answers: StunAnswer[]): string {
  return JSON.stringify(result(answers)) + "\n";
}

/** `mapping` is left out where the answers tell nothing about it. */
function result(answers: StunAnswer[]): { addr: string; via: string; mapping?: string } {
  const { mapped, server } = answers[0]!;
  const mapping = mappingBehaviour(answers);
  return {
    addr: formatEndpoint(mapped),
    via: server.name,
    ...(mapping === "unknown" ? {} : { mapping }),
  };
}
