/**
 * Strict reverse path for IPv6, which has no rp_filter: what comes out of a client's link from a
 * source that is not routed back into that link is dropped. Link-local ones, which routing daemons
 * use, are.
 */
import { Writer } from "../bytes.ts";
import { NetlinkError, nft } from "../netlink.ts";

export class SourceFence implements Disposable {
  readonly #name: string;
  readonly #nft = nft.Nft.open();
  #lastText = "";

  constructor(port: number) {
    this.#name = `gretun-hub-${port}`;
  }

  /** Throws `NftError` where the kernel cannot look at routes in rules. */
  update(ifindexes: readonly number[]): void {
    const text = ifindexes.join();
    if (text === this.#lastText) return;
    this.#lastText = text;
    const elements = ifindexes.map((i) => ({ key: new Writer("host", 4).u32(i).finish() }));
    this.#nft.replaceTable({
      family: "ip6",
      name: this.#name,
      sets: [{ name: "links", element: ["interface"], elements }],
      chains: [{
        ...{ name: "in", type: "filter", hook: "prerouting", policy: "accept" },
        priority: nft.PRIORITY.raw,
      }],
      rules: [{
        chain: "in",
        match: [nft.isIn("links", nft.incoming()), nft.hasNoWayBack()],
        counter: true,
        verdict: "drop",
      }],
    });
  }

  [Symbol.dispose](): void {
    try {
      this.#nft.deleteTable("ip6", this.#name);
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error; // none was made, or somebody flushed it
    }
    this.#nft[Symbol.dispose]();
  }
}
