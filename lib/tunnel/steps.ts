/** The steps that make or remove tunnels, and each one as the `ip` command that does the same. */
import { type Cidr, familyOf, formatCidr } from "../addr.ts";
import { isGre } from "../links/mod.ts";
import {
  type FouPort,
  outerFamily,
  type Payload,
  type Tunnel,
  type TunnelEncap,
  type TunnelKind,
} from "../netlink.ts";
import { TOS_INHERIT, TTL_INHERIT } from "./validate.ts";

export type Step =
  | { do: "load-module"; module: string }
  | { do: "open-fou-port"; port: FouPort }
  | {
    do: "add-link";
    name: string;
    kind: TunnelKind;
    tunnel: Tunnel;
    /** Name of `tunnel.device`. */
    device?: string;
    mtu: number;
  }
  | { do: "mark-link"; name: string; alias: string }
  | { do: "add-address"; name: string; address: Cidr }
  | { do: "bring-up"; name: string }
  | { do: "add-route"; name: string; destination: Cidr }
  | { do: "delete-link"; name: string; ifindex: number }
  | { do: "close-fou-port"; port: FouPort };

export type AddLink = Extract<Step, { do: "add-link" }>;

/** A line for a shell. */
export function formatStep(step: Step): string {
  return wordsOf(step).map(shellWord).join(" ");
}

/** What a word of a shell needs no quotes for. */
function shellWord(word: string): string {
  return /^[\w.:/@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function wordsOf(step: Step): string[] {
  switch (step.do) {
    case "load-module":
      return ["modprobe", step.module];
    case "open-fou-port":
      return fouWords("add", step.port);
    case "add-link":
      return linkWords(step);
    case "mark-link":
      return ["ip", "link", "set", "dev", step.name, "alias", step.alias];
    case "add-address": {
      const nodad = familyOf(step.address.ip) === 6 ? ["nodad"] : [];
      return ["ip", "address", "add", formatCidr(step.address), "dev", step.name, ...nodad];
    }
    case "bring-up":
      return ["ip", "link", "set", "dev", step.name, "up"];
    case "add-route": {
      const { destination, name } = step;
      const family = familyOf(destination.ip) === 6 ? ["-6"] : [];
      return ["ip", ...family, "route", "add", formatCidr(destination), "dev", name]
        .concat("proto", "static");
    }
    case "delete-link":
      return ["ip", "link", "delete", "dev", step.name];
    case "close-fou-port":
      return fouWords("del", step.port);
    default:
      return step satisfies never;
  }
}

function fouWords(verb: "add" | "del", { port, family, type, ipproto }: FouPort): string[] {
  const words = ["ip", ...(family === 6 ? ["-6"] : []), "fou", verb, "port", String(port)];
  if (verb === "del") return words;
  return type === "gue" ? [...words, "gue"] : [...words, "ipproto", String(ipproto)];
}

function linkWords({ name, kind, tunnel, device, mtu }: AddLink): string[] {
  const words = ["ip", "link", "add", "name", name, "mtu", String(mtu), "type", kind];
  words.push(...modeWords(kind, tunnel.payload));
  if (tunnel.local) words.push("local", tunnel.local);
  words.push("remote", tunnel.remote);
  words.push(...(outerFamily(kind) === 4 ? ipv4Words(tunnel) : ipv6Words(tunnel)));
  if (isGre(kind)) words.push(...greWords(tunnel));
  if (device !== undefined) words.push("dev", device);
  if (tunnel.encap) words.push(...encapWords(kind, tunnel.encap));
  return words;
}

const MODES: Record<string, Record<Payload, string>> = {
  ipip: { any: "any", ipv4: "ipip", ipv6: "any" },
  sit: { any: "any", ipv4: "ipip", ipv6: "ip6ip" },
  ip6tnl: { any: "any", ipv4: "ipip6", ipv6: "ip6ip6" },
};

function modeWords(kind: TunnelKind, payload: Payload | undefined): string[] {
  const mode = payload && MODES[kind]?.[payload];
  return mode ? ["mode", mode] : [];
}

function ipv4Words({ ttl, tos, pmtudisc }: Tunnel): string[] {
  return [
    ...["ttl", ttl === TTL_INHERIT ? "inherit" : String(ttl)],
    ...(tos ? ["tos", tos === TOS_INHERIT ? "inherit" : hex(tos)] : []),
    pmtudisc ? "pmtudisc" : "nopmtudisc",
  ];
}

/** Here `ip` knows no word for an inherited TTL, only its number. */
function ipv6Words({ ttl, tos, encapLimit }: Tunnel): string[] {
  return [
    ...["hoplimit", String(ttl)],
    ...(tos ? ["tclass", tos === TOS_INHERIT ? "inherit" : hex(tos)] : []),
    ...["encaplimit", encapLimit === undefined ? "none" : String(encapLimit)],
  ];
}

const hex = (n: number) => `0x${n.toString(16).padStart(2, "0")}`;

function greWords({ ikey, okey, csum, seq }: Tunnel): string[] {
  const words = [];
  if (ikey !== undefined && ikey === okey) words.push("key", String(ikey));
  else {
    if (ikey !== undefined) words.push("ikey", String(ikey));
    if (okey !== undefined) words.push("okey", String(okey));
  }
  for (const [word, direction] of [["csum", csum], ["seq", seq]] as const) {
    if (direction) words.push({ both: word, in: `i${word}`, out: `o${word}` }[direction]);
  }
  return words;
}

function encapWords(kind: TunnelKind, { type, sport, dport, csum }: TunnelEncap): string[] {
  const word = outerFamily(kind) === 4 ? "encap-csum" : "encap-udp6-csum";
  return [
    ...["encap", type, "encap-sport", sport === 0 ? "auto" : String(sport)],
    ...["encap-dport", String(dport), csum ? word : `no${word}`],
  ];
}
