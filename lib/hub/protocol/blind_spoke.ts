/**
 * Protocols whose server answers nothing: ipipou and jtunnel. The link is there from the start; a
 * packet that says who we are goes out at the start, after every change of address, and as often
 * as a keepalive is asked for.
 */
import { NoKernelPlaneError } from "../../dataplane/mod.ts";
import type { Datagram } from "../../edges.ts";
import { errorText, GretunError } from "../../errors.ts";
import { equalSockAddrs, type Poller, type SockAddr, sockAddrOf } from "../../linux/mod.ts";
import { BareCodec, JtunnelCodec } from "../codecs.ts";
import { encodeIpipouAuth, IPIPOU_SIGNALLING } from "./ipipou/wire.ts";
import { KernelPlane } from "../kernel_plane.ts";
import type { DataCodec, HubPlane, PlaneOptions } from "../plane.ts";
import {
  HUB_LINK,
  type SpokeCore,
  type SpokeProtocol,
  type SpokeStatus,
} from "../spoke/spoke_core.ts";
import { TunPlane } from "../tun_plane.ts";

/** A link that cannot be set (no route yet) is tried again. */
const RETRY_MS = 2_000;
/** Names are looked up again once in so many keepalives. */
const LOOK_UP_EVERY = 8;

export class BlindSpoke implements SpokeProtocol {
  readonly plane: HubPlane;
  readonly #core: SpokeCore;
  readonly #bare: BareCodec;
  #hubAddress: SockAddr;
  #timer: number | undefined;
  #isUp = false;
  #sent = 0;
  #closed = false;

  constructor(core: SpokeCore, poller: Poller) {
    this.#core = core;
    this.#hubAddress = sockAddrOf(core.hub);
    this.#bare = new BareCodec(() => {}, (reason) => core.refused(reason));
    this.plane = core.options.protocol === "jtunnel"
      ? this.#openJtunnel(poller)
      : this.#openIpipou(poller);
    this.#followHub();
  }

  #planeOptions(): PlaneOptions {
    return { ...this.#core.planeOptions, onSignal: (datagram) => this.#signal(datagram) };
  }

  #openJtunnel(poller: Poller): HubPlane {
    const { dataPlane, allowFragments, clientId, serverIds } = this.#core.options;
    if (dataPlane !== "tun" && dataPlane !== "auto") {
      throw new GretunError("jtunnel's protocol has no kernel plane", "Use --data-plane tun");
    }
    const codec = new JtunnelCodec(clientId!, {
      onPacket: (id) => {
        if (serverIds.length === 0 || serverIds.includes(id)) return HUB_LINK;
        this.#core.refused("unknown-client");
        return undefined;
      },
      onRefused: (reason) => this.#core.refused(reason),
    });
    return TunPlane.open({ ...this.#planeOptions(), allowFragments }, this.#checked(codec), poller);
  }

  #openIpipou(poller: Poller): HubPlane {
    const { dataPlane } = this.#core.options;
    if (dataPlane === "gre-fou") {
      throw new GretunError("ipipou's protocol has no GRE", "Use --data-plane ipip-fou or tun");
    }
    const signalling = IPIPOU_SIGNALLING;
    const options = this.#planeOptions();
    if (dataPlane !== "tun") {
      try {
        return KernelPlane.open({ ...options, kind: "ipip-fou", signalling }, poller);
      } catch (error) {
        if (dataPlane !== "auto" || !(error instanceof NoKernelPlaneError)) throw error;
        this.#core.edges.log.info("no kernel plane here, using user space");
      }
    }
    return TunPlane.open({ ...options, signalling }, this.#checked(this.#bare), poller);
  }

  #checked(codec: DataCodec): DataCodec {
    return {
      overheadBytes: codec.overheadBytes,
      encode: (name, inner) => codec.encode(name, inner),
      decode: (bytes, source) => {
        if (equalSockAddrs(source, this.#hubAddress)) return codec.decode(bytes, source);
        this.#core.refused("wrong-address");
        return undefined;
      },
    };
  }

  #followHub(): void {
    const { hub } = this.#core;
    this.#hubAddress = sockAddrOf(hub);
    this.#bare.sources.clear();
    this.#bare.sources.set(`${hub.ip} ${hub.port}`, HUB_LINK);
  }

  start(): void {
    const { options, edges } = this.#core;
    edges.log.warn(`${options.protocol}'s protocol: data is not protected, the hub is not proven`);
    this.#set();
  }

  reauth(): void {
    this.#followHub();
    this.#set();
  }

  status(): SpokeStatus {
    return { state: this.#isUp ? "up" : "connecting", authentications: this.#sent };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.plane[Symbol.asyncDispose]();
  }

  /** The link, then the packet, then both again when it is time. */
  #set(): void {
    if (this.#closed) return;
    const { address, hubAddress, keepaliveMs } = this.#core.options;
    const addresses = address && hubAddress ? { local: address, peer: hubAddress } : {};
    this.#isUp = this.#core.setLink(addresses);
    if (this.#isUp) this.#sayHello();
    clearTimeout(this.#timer);
    if (this.#isUp && keepaliveMs === 0) return;
    this.#timer = setTimeout(() => this.#again(), this.#isUp ? keepaliveMs : RETRY_MS);
  }

  #again(): void {
    if (this.#sent % LOOK_UP_EVERY === LOOK_UP_EVERY - 1) this.#core.lookUpHub();
    this.#set();
  }

  #sayHello(): void {
    const { options, edges, hub } = this.#core;
    this.#sent++;
    if (options.protocol === "jtunnel") return this.plane.send(options.clientId!, hub);
    this.#sendAuth().catch((error) => {
      edges.log.error("authentication failed", { error: errorText(error) });
    });
  }

  async #sendAuth(): Promise<void> {
    const { options, edges } = this.#core;
    const seconds = Math.floor(edges.clock.wallMs() / 1000);
    const bytes = await encodeIpipouAuth(options.ipipou, seconds, edges.random(4));
    if (!this.#closed) this.plane.send(bytes, this.#core.hub);
  }

  /** ipipou's reply, when the server sends one. */
  #signal({ from }: Datagram): void {
    const { hub, edges } = this.#core;
    if (from.ip === hub.ip && from.port === hub.port) edges.log.debug("hub replied");
    else this.#core.refused("wrong-address");
  }
}
