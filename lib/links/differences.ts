/** How a link of ours differs from what it should be: whatever others have changed of it. Pure. */
import { type Cidr, familyOf, formatCidr } from "../addr.ts";
import type { InterfaceAddress, Link, Route } from "../netlink.ts";
import {
  addressesOf,
  addressText,
  type Inner,
  innerChanges,
  type LinkAddress,
  type LinkRoute,
  network,
} from "./inner.ts";

/** A link as it should be. */
export interface KeptState extends Inner {
  name: string;
  alias: string;
  /** Absent: not known now. */
  mtu?: number;
}

/** In the order in which they are mended: what comes later may need what comes before. */
export type Difference =
  | { facet: "name"; found: string }
  | { facet: "alias" }
  | { facet: "mtu"; found: number }
  | { facet: "addresses"; missing: LinkAddress[] }
  | { facet: "up" }
  | { facet: "routes"; missing: LinkRoute[] };

export type Facet = Difference["facet"];

/** What the kernel has of one link. */
export interface PresentState {
  link: Link;
  addresses: readonly LinkAddress[];
  routes: readonly Cidr[];
}

/** What others have added is theirs, and no difference. */
export function differences(wanted: KeptState, present: PresentState): Difference[] {
  const { link: { name, alias, mtu, up }, addresses, routes } = present;
  const all = routesOf(wanted);
  const inner = { addresses: wanted.addresses, routes: all.map(({ destination }) => destination) };
  const { addAddresses, addRoutes } = innerChanges(inner, { addresses, routes });
  const gone = new Set(addRoutes.map(formatCidr));
  const missing = all.filter(({ destination }) => gone.has(formatCidr(destination)));
  return [
    ...(name === wanted.name ? [] : [{ facet: "name", found: name } as const]),
    ...(alias === wanted.alias ? [] : [{ facet: "alias" } as const]),
    ...(mtu === (wanted.mtu ?? mtu) ? [] : [{ facet: "mtu", found: mtu } as const]),
    ...(addAddresses.length === 0 ? [] : [{ facet: "addresses", missing: addAddresses } as const]),
    ...(up ? [] : [{ facet: "up" } as const]),
    ...(missing.length === 0 ? [] : [{ facet: "routes", missing } as const]),
  ];
}

/** Those that are wanted, and those that the kernel adds with an address. */
function routesOf({ addresses, routes }: Inner): LinkRoute[] {
  const own = addresses.flatMap(({ local, peer, prefixLength }): LinkRoute[] => {
    const isAlone = peer === undefined && prefixLength === (familyOf(local) === 4 ? 32 : 128);
    const destination = network({ ip: peer ?? local, prefixLength });
    return isAlone ? [] : [{ destination, source: local }];
  });
  return [...own, ...routes.map((destination) => ({ destination: network(destination) }))];
}

/** For the log, as in "down, no route to 10.0.0.2/32". */
export function differencesText(found: readonly Difference[]): string {
  return found.map(differenceText).join(", ");
}

function differenceText(difference: Difference): string {
  switch (difference.facet) {
    case "name":
      return `renamed to ${difference.found}`;
    case "alias":
      return "another alias";
    case "mtu":
      return `MTU ${difference.found}`;
    case "addresses":
      return `without address ${difference.missing.map(addressText).join(" and ")}`;
    case "up":
      return "down";
    case "routes":
      return `without route to ${
        difference.missing.map(({ destination }) => formatCidr(destination)).join(" and ")
      }`;
    default:
      return difference satisfies never;
  }
}

/** What a host has, by ifindex. */
export function presentStates(
  links: readonly Link[],
  addresses: readonly InterfaceAddress[],
  routes: readonly Route[],
): (ifindex: number) => PresentState | undefined {
  const byIndex = new Map(links.map((link) => [link.ifindex, link]));
  const addressesBy = Map.groupBy(addresses, ({ ifindex }) => ifindex);
  const routesBy = Map.groupBy(routes, ({ device }) => device);
  return (ifindex) => {
    const link = byIndex.get(ifindex);
    return link && {
      link,
      addresses: addressesOf(addressesBy.get(ifindex) ?? [], ifindex),
      routes: (routesBy.get(ifindex) ?? []).map(({ destination }) => network(destination)),
    };
  };
}
