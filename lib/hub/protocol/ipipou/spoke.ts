/** ipipou's protocol on a spoke: on kernel IPIP over FOU, or the same bytes from user space. */
import { Alarm } from "../../../alarm.ts";
import { type DataPlane, openPlane } from "../../../dataplane/mod.ts";
import type { Datagram } from "../../../edges.ts";
import { equalEndpoints, formatEndpoint } from "../../../addr.ts";
import { errorText, GretunError } from "../../../errors.ts";
import { Announcer } from "../../spoke/announcer.ts";
import {
  HUB_LINK,
  type SpokeCore,
  type SpokeProtocol,
  type SpokeStatus,
} from "../../spoke/spoke_core.ts";
import { type Answers, type AnswersEvent, newAnswers, stepAnswers } from "./answers.ts";
import { bareCodec } from "./codec.ts";
import { encodeIpipouAuth, IPIPOU_SIGNALLING } from "./wire.ts";

const COUNT_GAP_MS = 1_000;
const SALT_LENGTH = 4;

export class IpipouSpoke implements SpokeProtocol {
  readonly plane: DataPlane;
  readonly #core: SpokeCore;
  readonly #announcer: Announcer;
  readonly #count: Alarm;
  #answers: Answers = newAnswers();
  #closed = false;

  constructor(core: SpokeCore) {
    this.#core = core;
    this.#announcer = new Announcer(core, () => this.#authenticate());
    this.#count = new Alarm(core.edges.clock, () => this.#lookAtCounters());
    const { dataPlane } = core.options;
    if (dataPlane === "gre-fou") {
      throw new GretunError("ipipou's protocol has no GRE", "Use --data-plane ipip-fou or tun");
    }
    this.plane = openPlane(
      { wanted: dataPlane, kernel: "ipip-fou", codec: bareCodec },
      {
        ...{ ...core.planeOptions, signalling: IPIPOU_SIGNALLING },
        onDatagram: (datagram: Datagram) => this.#signal(datagram),
      },
      core.edges,
    );
  }

  start(): void {
    this.#core.edges.log.warn(
      "ipipou's protocol: data is not protected, the hub is not proven",
    );
    this.#come();
  }

  reauth(reason: "moved" | "asked"): void {
    if (reason === "moved") this.#come();
    else this.#announcer.announce();
  }

  #come(): void {
    this.#announcer.announce();
    this.#step({ kind: "came", nowMs: this.#core.edges.clock.nowMs() });
    this.#lookAtCounters();
  }

  status(): SpokeStatus {
    this.#lookAtCounters();
    const { isSet, count } = this.#announcer;
    return { state: isSet ? this.#answers.state : "connecting", authentications: count };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#announcer[Symbol.dispose]();
    this.#count[Symbol.dispose]();
    await this.plane[Symbol.asyncDispose]();
  }

  // --- who we are

  #authenticate(): void {
    this.#sendAuth().catch((error) => {
      this.#core.edges.log.error("authentication failed", { error: errorText(error) });
    });
  }

  async #sendAuth(): Promise<void> {
    const { options, edges } = this.#core;
    const seconds = Math.floor(edges.clock.wallMs() / 1000);
    const bytes = await encodeIpipouAuth(options.ipipou, seconds, edges.random(SALT_LENGTH));
    if (!this.#closed) this.plane.send(bytes, this.#core.hub);
  }

  // --- who is there

  /** The reply, when the hub sends one. */
  #signal({ from }: Datagram): void {
    if (!equalEndpoints(from, this.#core.hub)) return this.#core.refused("wrong-address");
    this.#core.edges.log.debug("hub replied");
    this.#step({ kind: "heard" });
  }

  #lookAtCounters(): void {
    const { edges: { clock } } = this.#core;
    const { rxPackets = 0, txPackets = 0 } = this.plane.counters().get(HUB_LINK) ?? {};
    this.#step({ kind: "counted", nowMs: clock.nowMs(), rxPackets, txPackets });
    this.#count.set(clock.nowMs() + COUNT_GAP_MS);
  }

  #step(event: AnswersEvent): void {
    const { state } = this.#answers;
    this.#answers = stepAnswers(this.#answers, event);
    if (this.#answers.state === state) return;
    this.#core.setUp(this.#answers.state === "up");
    const { edges: { log }, hub } = this.#core;
    if (this.#answers.state === "up") return log.info("hub is there", { hub: formatEndpoint(hub) });
    log.warn("hub does not answer", {
      hub: formatEndpoint(hub),
      hint: "it may be away, behind a firewall, or does not take this token or key: see its log",
    });
  }
}
