/**
 * Another host with this node's key, as from a copied machine image: the coordinator then lists this node
 * with what that one has told, and peers' links swing between both. Pure.
 */
import { formatEndpoint } from "../addr.ts";
import type { AdvertisedEndpoint, PeerRecord } from "../coord/api.ts";

/** Lists that may still be under way, or be listed from before. */
const REMEMBERED = 16;

export class TwinWatch {
  readonly #told: string[] = [];
  /** What an earlier run of this node has told may be listed until its own word is. */
  #isListedAsTold = false;

  /** This node tells its endpoints. */
  tells(endpoints: readonly AdvertisedEndpoint[]): void {
    this.#told.push(textOf(endpoints));
    if (this.#told.length > REMEMBERED) this.#told.shift();
  }

  /** Whether this node has told these. */
  isTold(endpoints: readonly AdvertisedEndpoint[]): boolean {
    return this.#told.includes(textOf(endpoints));
  }

  /** Whether this node's own record shows another host. Its name says nothing: operators give others. */
  isTwin({ endpoints }: Pick<PeerRecord, "endpoints">): boolean {
    const isAsTold = endpoints.length === 0 || this.isTold(endpoints);
    this.#isListedAsTold ||= isAsTold && endpoints.length > 0;
    return this.#isListedAsTold && !isAsTold;
  }
}

function textOf(endpoints: readonly AdvertisedEndpoint[]): string {
  return endpoints.map(({ endpoint }) => formatEndpoint(endpoint)).sort().join();
}
