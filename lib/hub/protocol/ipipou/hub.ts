/**
 * ipipou's protocol on the hub: a packet on the data's own port moves the tunnel to where it came
 * from. See `ipipou.ts` for what that cannot protect against.
 */
import { type Endpoint, equalEndpoints } from "../../../addr.ts";
import { toHex } from "../../../bytes.ts";
import { type DataPlane, openPlane, type PlaneOptions } from "../../../dataplane/mod.ts";
import type { Datagram } from "../../../edges.ts";
import { errorText } from "../../../errors.ts";
import { SourceLimits, TokenBucket } from "../../../limits.ts";
import { bareCodec } from "./codec.ts";
import type { HubCore, HubEntry, HubOptions, HubProtocol } from "../../hub_core.ts";
import {
  checkIpipouAuth,
  encodeIpipouReply,
  IPIPOU_DEFAULT_SECRET,
  IPIPOU_SIGNALLING,
  IPIPOU_SIGNED_LENGTH,
  type IpipouClient,
  type IpipouRefusal,
  MAX_TOKEN_LENGTH,
} from "./wire.ts";
import { NonceStore } from "../gretun/nonce_store.ts";

const SOURCE_LIMIT = { perSecond: 20, burst: 100, maxSources: 4096, whenFull: "forget" } as const;
/** Of clients that are connected, from where they are: strangers' packets do not silence them. */
const REPEAT_LIMIT = { perSecond: 1_000, burst: 3_000 };
/** Nothing cheaper than its signature tells a forged packet. */
const VERIFY_LIMIT = { perSecond: 1_000, burst: 3_000 };
/** For how long a packet is remembered when its time is not looked at. */
const UNBOUNDED_KEEP_MS = 24 * 3_600_000;
const MAX_NONCES = 65_536;
/** From most to least telling, when every client refuses for a reason of its own. */
const REASONS = [
  "replayed",
  "rate-limited",
  "bad-proof",
  "stale",
  "bad-token",
  "malformed",
] as const;

/** How a client is known, in the order in which they are tried. */
const CLASSES = ["token", "signs here", "signs", "address"] as const;
type ClientClass = typeof CLASSES[number];

function classOf(
  { policy: { endpoint } }: HubEntry,
  { token, publicKey }: IpipouClient,
  from: Endpoint,
): ClientClass {
  if (token) return "token";
  if (!publicKey) return "address";
  return endpoint && equalEndpoints(endpoint, from) ? "signs here" : "signs";
}

export class IpipouHub implements HubProtocol {
  readonly plane: DataPlane;
  readonly takesAnySource = false;
  readonly #core: HubCore;
  readonly #clients = new Map<HubEntry, IpipouClient>();
  readonly #nonces: NonceStore;
  readonly #sources = new SourceLimits(SOURCE_LIMIT);
  readonly #repeats = new TokenBucket(REPEAT_LIMIT);
  readonly #verifications = new TokenBucket(VERIFY_LIMIT);

  constructor(core: HubCore, options: PlaneOptions) {
    this.#core = core;
    const { dataPlane } = core.options;
    this.#nonces = new NonceStore({ keepMs: nonceKeepMs(core.options), capacity: MAX_NONCES });
    const { log } = core.edges;
    const tokens = () => [...this.#clients.values()].flatMap(({ token }) => token ?? []);
    this.plane = openPlane(
      {
        wanted: dataPlane,
        kernel: "ipip-fou",
        codec: () => bareCodec((name) => core.carried(name)),
      },
      {
        ...{ ...options, signalling: IPIPOU_SIGNALLING },
        lookalikes: { lengths: [IPIPOU_SIGNED_LENGTH], tokens },
      },
      core.edges,
    );
    log.warn(
      "ipipou's protocol: whoever captures an authentication packet and delivers it first gets the tunnel; the server is not proven; data is not protected",
    );
  }

  admit(entry: HubEntry): string | undefined {
    const { publicKey, token, remote, secret } = entry.file;
    if (!publicKey && !token && !remote) return "has neither public-key nor token nor remote";
    if (token && token.length > MAX_TOKEN_LENGTH) return "token is longer than 1472 bytes";
    this.#clients.set(entry, {
      ...(publicKey ? { publicKey } : {}),
      ...(token ? { token } : {}),
      ...(remote ? { remoteIp: remote.ip } : {}),
      ...(remote && remote.port !== 0 ? { remotePort: remote.port } : {}),
      secret: secret ?? this.#core.options.secret ?? IPIPOU_DEFAULT_SECRET,
    });
    return undefined;
  }

  forget(entry: HubEntry): void {
    this.#clients.delete(entry);
  }

  clientId(name: string): string {
    return toHex(new TextEncoder().encode(name));
  }

  reconfigured(): void {
    this.#nonces.keepMs = nonceKeepMs(this.#core.options);
  }

  signal({ bytes, from }: Datagram): void {
    // The datagram is a view of a buffer that is used again.
    this.#authenticate(bytes.slice(), from).catch((error) => {
      this.#core.edges.log.error("authentication failed", { error: errorText(error) });
    });
  }

  async #authenticate(bytes: Uint8Array, from: Endpoint): Promise<void> {
    const found = await this.#find(bytes, from);
    if (found === "rate-limited") return this.#core.refused(found);
    if (typeof found === "string") return this.#core.refusedAuthentication(found, from);
    if (this.#clients.has(found)) await this.#take(found, bytes, from);
  }

  /**
   * Packets do not say whose they are, so every client that could be is tried: by token, by
   * signature as often as that can be afforded, and last those that only have to be somewhere.
   */
  async #find(
    bytes: Uint8Array,
    from: Endpoint,
  ): Promise<HubEntry | IpipouRefusal | "rate-limited" | "unknown-client"> {
    const byClass = Map.groupBy(this.#clients, ([entry, client]) => classOf(entry, client, from));
    const seen = new Set<IpipouRefusal | "rate-limited">();
    for (const kind of CLASSES) {
      const known = byClass.get(kind) ?? [];
      if (known.length > 0 && !this.#mayTry(kind, from)) seen.add("rate-limited");
      else {for (const [entry, client] of known) {
          const refusal = this.#mayVerify(kind)
            ? await this.#check(client, bytes, from)
            : "rate-limited";
          if (!refusal) return entry;
          seen.add(refusal);
        }}
    }
    return REASONS.find((reason) => seen.has(reason)) ?? "unknown-client";
  }

  #mayTry(kind: ClientClass, { ip }: Endpoint): boolean {
    return kind !== "signs" || this.#sources.take(ip, this.#nowMs);
  }

  #mayVerify(kind: ClientClass): boolean {
    switch (kind) {
      case "signs here":
        return this.#repeats.take(this.#nowMs);
      case "signs":
        return this.#verifications.take(this.#nowMs);
      case "token":
      case "address":
        return true;
      default:
        return kind satisfies never;
    }
  }

  get #nowMs(): number {
    return this.#core.edges.clock.nowMs();
  }

  async #check(client: IpipouClient, bytes: Uint8Array, from: Endpoint) {
    const { edges, options: { maxTimeDiscrepancyS } } = this.#core;
    const at = { wallMs: edges.clock.wallMs(), maxTimeDiscrepancyS, nonces: this.#nonces };
    return await checkIpipouAuth(client, bytes, from, at);
  }

  async #take(entry: HubEntry, bytes: Uint8Array, from: Endpoint): Promise<void> {
    const { options, edges } = this.#core;
    const { endpoint } = entry.policy;
    const isRepeat = endpoint !== undefined && equalEndpoints(endpoint, from);
    if (!this.#core.authenticated(entry, from)) return this.#core.refused("link-failed");
    if (!options.replyOnAuthOk || isRepeat) return;
    const client = this.#clients.get(entry)!;
    const own = { client, ...(options.ownSeed ? { seed: options.ownSeed } : {}) };
    const seconds = Math.floor(edges.clock.wallMs() / 1000);
    this.plane.send(await encodeIpipouReply(bytes, own, seconds, edges.random(4)), from);
  }
}

/** Twice the window: a packet's time may be ahead by as much as another's is behind. */
function nonceKeepMs({ maxTimeDiscrepancyS }: HubOptions): number {
  return maxTimeDiscrepancyS > 0 ? 2000 * (maxTimeDiscrepancyS + 1) : UNBOUNDED_KEEP_MS;
}
