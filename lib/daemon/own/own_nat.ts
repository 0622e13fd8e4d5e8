/** Learns how this node's NAT maps, and learns it anew when the network may be another. */
import { formatEndpoint } from "../../addr.ts";
import type { NodeNat } from "../../coord/api.ts";
import type { Clock, Log } from "../../edges.ts";
import { errorText } from "../../errors.ts";
import type { Lookup } from "../../lookup.ts";
import {
  mappingBehaviour,
  resolveServers,
  type StunAnswer,
  type StunServer,
} from "../../stun/mod.ts";
import type { StunPort } from "./extra_stun.ts";
import { isHardMapping, portDelta } from "../../peer/mod.ts";

const LEARN_INTERVAL_MS = 600_000;
/** After nobody answered, or only one server at one place. */
const RETRY_MS = 30_000;
/** Let what changed settle. */
const SETTLE_MS = 500;
const STUN_TIMEOUT_MS = 2_000;
/** Mappings that tell whether ports are taken in order. */
const SAMPLES = 4;

export interface OwnNatOptions {
  openPort: () => StunPort;
  stunServers: () => readonly string[];
  /** The system's unless told. */
  lookup?: Lookup;
  clock: Clock;
  log: Log;
  /** {@link OwnNat.nat} is another. */
  onChange: () => void;
}

export class OwnNat {
  readonly #options: OwnNatOptions;
  #nat: NodeNat | undefined;
  /** Of IPv4, and the places where they say that they can be asked too. */
  #servers: readonly StunServer[] = [];
  #answeredMs = -Infinity;
  #askedMs = -Infinity;
  /** Ends the pause between two looks. */
  #wake = new AbortController();

  constructor(options: OwnNatOptions) {
    this.#options = options;
  }

  /** Undefined while it is not known. */
  get nat(): NodeNat | undefined {
    return this.#nat;
  }

  /** One that has answered. */
  get server(): StunServer | undefined {
    return this.#servers[0];
  }

  /** When a server last answered, in monotonic ms. */
  get answeredMs(): number {
    return this.#answeredMs;
  }

  /** When servers were last asked. */
  get askedMs(): number {
    return this.#askedMs;
  }

  /** Looks again soon. */
  look(): void {
    this.#wake.abort();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      const learnt = await this.#learn(signal).catch((error) => {
        if (!signal.aborted) log.debug("NAT not looked at", { error: errorText(error) });
        return undefined;
      });
      if (learnt) this.#set(learnt);
      const either = AbortSignal.any([this.#wake.signal, signal]);
      await clock.sleep(learnt ? LEARN_INTERVAL_MS : RETRY_MS, either).catch(() => {});
      await clock.sleep(SETTLE_MS, signal).catch(() => {});
    }
  }

  #set(nat: NodeNat): void {
    const known = this.#nat;
    if (known?.mapping === nat.mapping && known.portDelta === nat.portDelta) return;
    this.#nat = nat;
    this.#options.log.info("NAT", { mapping: nat.mapping, port_delta: nat.portDelta });
    this.#options.onChange();
  }

  async #learn(signal: AbortSignal): Promise<NodeNat | undefined> {
    const { openPort, stunServers, lookup } = this.#options;
    const names = stunServers();
    if (names.length === 0) return undefined;
    const servers = await resolveServers(names, { family: 4, ...(lookup ? { lookup } : {}) });
    using stack = new DisposableStack();
    const port = stack.use(openPort());
    this.#askedMs = this.#options.clock.nowMs();
    const answers = await askAllPlaces(port, servers, signal);
    this.#servers = answers.map(({ server }) => server);
    if (answers.length > 0) this.#answeredMs = this.#options.clock.nowMs();
    const isHard = isHardMapping(mappingBehaviour(answers));
    if (isHard === undefined) return undefined;
    if (!isHard) return { mapping: "easy" };
    const ports = Array.from({ length: SAMPLES }, () => stack.use(openPort()));
    const delta = portDelta(await this.#sample(ports, signal));
    return { mapping: "hard", ...(delta === undefined ? {} : { portDelta: delta }) };
  }

  /** The mapped ports of new mappings, in the order in which they were made. */
  async #sample(ports: readonly StunPort[], signal: AbortSignal): Promise<number[]> {
    const server = this.#servers[0]!;
    // Each sends before it waits.
    const asked = ports.map(({ stun }) =>
      stun.query([server], { timeoutMs: STUN_TIMEOUT_MS, signal })
    );
    return (await Promise.all(asked)).flat().map(({ mapped }) => mapped.port);
  }
}

/** From one port: the servers, and then where else they say that they are. */
async function askAllPlaces(
  { stun }: StunPort,
  servers: readonly StunServer[],
  signal: AbortSignal,
): Promise<StunAnswer[]> {
  const options = { timeoutMs: STUN_TIMEOUT_MS, graceMs: STUN_TIMEOUT_MS / 4, signal };
  const answers = await stun.query(servers, options);
  const asked = new Set(servers.map(({ endpoint }) => formatEndpoint(endpoint)));
  const others = answers.flatMap(({ server: { name }, other }) => {
    if (!other || asked.has(formatEndpoint(other))) return [];
    asked.add(formatEndpoint(other));
    return [{ name, endpoint: other }];
  });
  return others.length === 0 ? answers : [...answers, ...await stun.query(others, options)];
}
