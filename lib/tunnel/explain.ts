/** What the kernel's refusals mean here, and what to do about each. */
import { formatCidr } from "../addr.ts";
import { errorText, GretunError } from "../errors.ts";
import { NetlinkError } from "../netlink.ts";
import type { TunnelHost } from "./host.ts";
import { modulesOf } from "./plan.ts";
import type { AddLink, Step } from "./steps.ts";

/** A kernel without FOU or the kind of tunnel, and no module of it that could be loaded. */
export class MissingModuleError extends GretunError {
  override name = "MissingModuleError";

  constructor(what: string, readonly module: string, cause: unknown) {
    super(
      `${what}: this kernel has no ${module}, and it could not be loaded`,
      `Run as root: modprobe ${module}; where there is no such module, ` +
        "gretun up --data-plane tun needs none",
      { cause },
    );
  }
}

/** Of errno names, whatever the step. */
const MEANINGS: Record<string, [meaning: string, hint: string]> = {
  EPERM: [
    "permission denied",
    "It needs CAP_NET_ADMIN in this network namespace: use sudo, or setcap cap_net_admin+ep gretun",
  ],
  EEXIST: ["it exists already", "Remove the existing one first, or choose another"],
  ENODEV: ["the interface is not there", "See what there is with: gretun list"],
  EINVAL: ["the kernel refuses these settings", "Check addresses, key, TTL and MTU"],
  EOPNOTSUPP: ["the kernel does not support it", "See the kernel's log: dmesg"],
  EBUSY: ["the device is busy", "Try again, or look who uses it with: ip -d link"],
  ENETDOWN: ["the network is down", "Bring the device up with: ip link set dev DEVICE up"],
  ENETUNREACH: ["there is no way to it", "Check the addresses with: ip address"],
  EADDRINUSE: ["the address is in use", "Choose another one"],
  ERANGE: ["a number is out of the kernel's range", "Check the MTU"],
  ENOBUFS: ["the kernel has no memory left for it", "Try again with fewer tunnels"],
};
MEANINGS.EACCES = MEANINGS.EPERM!;
MEANINGS.ENOMEM = MEANINGS.ENOBUFS!;

/** The error of a step that failed, in words of tunnels; what is none of the kernel's stays. */
export function explain(error: unknown, step: Step, host: TunnelHost): unknown {
  const what = `cannot ${purposeOf(step)}`;
  if (error instanceof MissingModuleError || !(error instanceof NetlinkError)) return error;
  if (step.do === "add-link") {
    const missing = missingModule(error.code, step, host);
    if (missing) return new MissingModuleError(what, missing, error);
  }
  if (step.do === "open-fou-port" && error.code === "EADDRINUSE") {
    return portInUse(what, step.port, error, host);
  }
  const [meaning, hint] = MEANINGS[error.code] ?? ["operation failed", error.hint];
  const words = error.extack ? `${error.extack} (${error.code})` : error.code;
  return new GretunError(`${what}: ${meaning}: ${words}`, hint, { cause: error });
}

/** EOPNOTSUPP: no such kind; EINVAL behind UDP: FOU is not there for that IP version. */
function missingModule(code: string, step: AddLink, host: TunnelHost): string | undefined {
  const { kind, tunnel: { encap } } = step;
  const [kindModule, ...encapModules] = modulesOf({ kind, ...(encap ? { encap } : {}) });
  if (code === "EOPNOTSUPP") return kindModule;
  if (code !== "EINVAL") return undefined;
  const loaded = host.loadedModules();
  return encapModules.find((module) => !loaded.has(module));
}

function portInUse(
  what: string,
  { port, family }: Extract<Step, { do: "open-fou-port" }>["port"],
  cause: NetlinkError,
  host: TunnelHost,
): GretunError {
  const owner = host.udpPortOwner(port, family);
  return new GretunError(
    `${what}: UDP port ${port} is in use by ${owner ?? "another program or the kernel"}`,
    "Choose another one with --fou-port, or another --encap-dport at both ends",
    { cause },
  );
}

function purposeOf(step: Step): string {
  switch (step.do) {
    case "load-module":
      return `load kernel module ${step.module}`;
    case "open-fou-port":
      return `open FOU port ${step.port.port}`;
    case "add-link":
      return `create tunnel ${step.name}`;
    case "mark-link":
      return `mark tunnel ${step.name}`;
    case "add-address":
      return `assign ${formatCidr(step.address)} to tunnel ${step.name}`;
    case "bring-up":
      return `bring tunnel ${step.name} up`;
    case "add-route":
      return `add route ${formatCidr(step.destination)} through tunnel ${step.name}`;
    case "delete-link":
      return `delete tunnel ${step.name}`;
    case "close-fou-port":
      return `close FOU port ${step.port.port}`;
    default:
      return step satisfies never;
  }
}

/** The failure, with what could not be taken back after it. */
export function withLeftovers(error: unknown, leftovers: readonly string[]): unknown {
  if (leftovers.length === 0) return error;
  return new GretunError(
    `${errorText(error)}; and it could not all be taken back`,
    `Remove what is left with: ${leftovers.join("; ")}`,
    { cause: error },
  );
}
