/** jtunnel's protocol on a spoke: its identifier in front of each packet, and alone as a sign of life. */
import { type DataPlane, openPlane } from "../../../dataplane/mod.ts";
import { GretunError } from "../../../errors.ts";
import { Announcer } from "../../spoke/announcer.ts";
import {
  HUB_LINK,
  type SpokeCore,
  type SpokeProtocol,
  type SpokeStatus,
} from "../../spoke/spoke_core.ts";
import { JtunnelCodec } from "./codec.ts";
import type { JtunnelId } from "./wire.ts";

export class JtunnelSpoke implements SpokeProtocol {
  readonly plane: DataPlane;
  readonly #core: SpokeCore;
  readonly #announcer: Announcer;

  constructor(core: SpokeCore) {
    this.#core = core;
    const { dataPlane, allowFragments, clientId, serverIds } = core.options;
    if (dataPlane !== "tun" && dataPlane !== "auto") {
      throw new GretunError("jtunnel's protocol has no kernel plane", "Use --data-plane tun");
    }
    let hubId: JtunnelId | undefined;
    const codec = new JtunnelCodec(clientId!, {
      takesFrom: core.isHub,
      onPacket: (id) => {
        if (serverIds.length > 0 && !serverIds.includes(id)) {
          core.refused("unknown-client");
          return undefined;
        }
        hubId = id;
        codec.onChanged?.(HUB_LINK);
        return HUB_LINK;
      },
      onRefused: (reason) => core.refused(reason),
      onCarried: () => {},
      farId: () => hubId,
    });
    this.plane = openPlane(
      { wanted: "tun", codec: () => codec },
      { ...core.planeOptions, allowFragments },
      core.edges,
    );
    this.#announcer = new Announcer(core, () => {
      this.plane.send(clientId!, core.hub);
      core.setUp(true);
    });
  }

  start(): void {
    this.#core.edges.log.warn("jtunnel's protocol: data is not protected, the hub is not proven");
    this.#announcer.announce();
  }

  reauth(): void {
    this.#announcer.announce();
  }

  status(): SpokeStatus {
    const { isSet, count } = this.#announcer;
    return { state: isSet ? "up" : "connecting", authentications: count };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#announcer[Symbol.dispose]();
    await this.plane[Symbol.asyncDispose]();
  }
}
