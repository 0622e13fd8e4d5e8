/** IPv4 addresses on a host that has IPv6 alone, behind a network's translator (NAT64). */
import { type Endpoint, type Ip, parseIp } from "../../addr.ts";
import type { Lookup } from "../../lookup.ts";
import { askTranslation, type Translate } from "../../nat64.ts";
import type { RtNetlink } from "../../netlink.ts";

/** TEST-NET-1 (RFC 5737): a place that nobody has a route of its own to. */
const ANYWHERE_4 = parseIp("192.0.2.1");

export interface TranslatorOptions {
  rtnl: Pick<RtNetlink, "tryRouteTo">;
  lookup: Lookup;
  /** IPv4 addresses are reached otherwise now. */
  onChange: () => void;
}

export class Translator {
  readonly #options: TranslatorOptions;
  #translate: Translate | undefined;

  constructor(options: TranslatorOptions) {
    this.#options = options;
  }

  /** Links, addresses or routes are others now. */
  async changed(): Promise<void> {
    const { rtnl, lookup, onChange } = this.#options;
    const hasIpv4 = rtnl.tryRouteTo(ANYWHERE_4) !== undefined;
    const translate = hasIpv4 ? undefined : await askTranslation(lookup);
    const isSame = translate?.(ANYWHERE_4) === this.#translate?.(ANYWHERE_4);
    this.#translate = translate;
    if (!isSame) onChange();
  }

  /** Where packets to that endpoint have to be sent. */
  reach({ ip, port }: Endpoint): Endpoint {
    return { ip: this.#translate?.(ip) ?? ip, port };
  }

  /** A name's addresses, with those that its IPv4 addresses are reached by. */
  readonly lookup: Lookup = async (hostname): Promise<Ip[]> => {
    const ips = await this.#options.lookup(hostname);
    return this.#translate ? [...new Set([...ips, ...ips.map(this.#translate)])] : ips;
  };
}
