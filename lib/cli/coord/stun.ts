/** The STUN server of gretun-coord: its flags and its ports. */
import { familyOf, type Ip } from "../../addr.ts";
import type { Log } from "../../edges.ts";
import { errorText, GretunError, UsageError } from "../../errors.ts";
import { sourceAddress } from "../../linux/mod.ts";
import { StunService } from "../../stun/mod.ts";
import { ALL, type ListenAddress, openListen } from "../../listen.ts";
import { parseListen } from "../listen.ts";
import { flag, type FlagValues } from "../flags.ts";

export const STUN_FLAGS = {
  "stun-listen": flag.list(
    "HOST:PORT",
    "UDP port of the STUN server, repeatable, or off (default :3478, and :3480 besides)",
  ),
  "stun-advertise": flag.list(
    "HOST:PORT",
    "STUN servers that nodes are told of (default: this one)",
  ),
} as const;

type StunFlags = FlagValues<typeof STUN_FLAGS>;

/** Answers come from there when a node wants to know how its NAT filters. */
const SECOND_STUN_PORT = 3480;

export interface StunSettings {
  listen: ListenAddress[];
  /** Whether {@link SECOND_STUN_PORT} is tried too. */
  hasSecond: boolean;
  /** What nodes are told. */
  advertised: string[];
}

/** Throws `UsageError`. */
export function stunSettings(flags: StunFlags): StunSettings {
  const given = flags["stun-listen"];
  if (given.includes("off") && given.length > 1) {
    throw new UsageError(
      `--stun-listen off and ${given.find((text) => text !== "off") ?? "off"} exclude each other`,
      "Give off alone, or only ports",
    );
  }
  const listen = given[0] === "off"
    ? []
    : (given.length > 0 ? given : [":3478"]).map((text) => parseListen("stun-listen", text));
  const advertised = flags["stun-advertise"].length > 0
    ? flags["stun-advertise"]
    : [...new Set(listen.map(({ port }) => `:${port}`))];
  return { listen, hasSecond: given.length === 0, advertised };
}

/** Serves until the signal. Throws `GretunError`. */
export function startStun(
  settings: StunSettings,
  options: { log: Log; signal: AbortSignal; isProven: (source: Ip) => boolean },
): void {
  const { log } = options;
  const stun = new StunService({ ...options, localAddress });
  for (const address of settings.listen) listenOn(stun, address);
  if (settings.hasSecond) listenOnSecond(stun, log);
}

function listenOn(stun: StunService, address: ListenAddress): void {
  try {
    openListen(address, (each) => stun.listen(each));
  } catch (cause) {
    throw new GretunError(
      `cannot serve STUN on ${address.hostname}:${address.port}: ${errorText(cause)}`,
      "Choose another address with --stun-listen, or turn it off with --stun-listen off",
      { cause },
    );
  }
}

/** Nothing depends on it but what nodes learn about their NATs. */
function listenOnSecond(stun: StunService, log: Log): void {
  try {
    openListen({ hostname: ALL, port: SECOND_STUN_PORT }, (each) => stun.listen(each));
  } catch (error) {
    log.warn("no second STUN port", { port: SECOND_STUN_PORT, error: errorText(error) });
  }
}

function localAddress(to: Ip): Ip | undefined {
  return familyOf(to) === 4 ? sourceAddress(to) : undefined;
}
