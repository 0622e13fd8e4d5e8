/** Performs the steps of a plan, in order; takes back what was done when one fails. */
import { hasCode, NetlinkError } from "../netlink.ts";
import { explain, MissingModuleError, withLeftovers } from "./explain.ts";
import type { TunnelHost } from "./host.ts";
import { formatStep, type Step } from "./steps.ts";

/** How to take a step back, as a step. */
type Undo = Extract<Step, { do: "delete-link" | "close-fou-port" }>;

/**
 * All steps or, after an error, none: links and ports are removed again in reverse order. A link
 * takes its addresses and routes with it, and a module that was loaded may stay. Steps that
 * delete cannot be taken back. Throws `GretunError`.
 */
export function applySteps(
  host: TunnelHost,
  steps: readonly Step[],
  onStep: (step: Step) => void = () => {},
): void {
  const ifindexes = new Map<string, number>();
  const done: Undo[] = [];
  const areLinksGone = deleteTogether(host, steps);
  for (const step of steps) {
    onStep(step);
    if (areLinksGone && step.do === "delete-link") continue;
    try {
      const undo = perform(host, step, ifindexes);
      if (undo) done.push(undo);
    } catch (error) {
      throw withLeftovers(explain(error, step, host), takeBack(host, done.reverse()));
    }
  }
}

/** Many links go much faster in one request; where that fails, one by one tells which and why. */
function deleteTogether({ rtnl }: TunnelHost, steps: readonly Step[]): boolean {
  const links = steps.filter((step) => step.do === "delete-link");
  if (links.length < 2) return false;
  try {
    rtnl.deleteLinks(links.map(({ ifindex }) => ifindex));
    return true;
  } catch (error) {
    if (error instanceof NetlinkError) return false;
    throw error;
  }
}

function perform(
  host: TunnelHost,
  step: Step,
  ifindexes: Map<string, number>,
): Undo | undefined {
  const { rtnl } = host;
  const ifindexOf = (name: string) => ifindexes.get(name)!;
  switch (step.do) {
    case "load-module":
      // What is built into the kernel cannot be loaded, and is there: what needs it will tell.
      host.loadModule(step.module);
      return undefined;
    case "open-fou-port":
      openPort(host, step);
      return { do: "close-fou-port", port: step.port };
    case "add-link": {
      const { name, kind, tunnel, mtu } = step;
      const ifindex = rtnl.createLink({ name, kind, tunnel, mtu });
      ifindexes.set(name, ifindex);
      return { do: "delete-link", name, ifindex };
    }
    case "mark-link":
      rtnl.changeLink(ifindexOf(step.name), { alias: step.alias });
      return undefined;
    case "add-address": {
      const { ip: local, prefixLength } = step.address;
      rtnl.addAddress({ ifindex: ifindexOf(step.name), local, prefixLength });
      return undefined;
    }
    case "bring-up":
      rtnl.changeLink(ifindexOf(step.name), { up: true });
      return undefined;
    case "add-route":
      rtnl.addRoute({ destination: step.destination, device: ifindexOf(step.name) });
      return undefined;
    case "delete-link":
      rtnl.deleteLink(step.ifindex);
      return undefined;
    case "close-fou-port":
      closePort(host, step);
      return undefined;
    default:
      return step satisfies never;
  }
}

function openPort(host: TunnelHost, { port }: Extract<Step, { do: "open-fou-port" }>): void {
  const fou = host.fou();
  if (!fou) throw new MissingModuleError(`cannot open FOU port ${port.port}`, "fou", undefined);
  fou.add(port);
}

/** One that is closed already is as good. */
function closePort(host: TunnelHost, { port }: Extract<Step, { do: "close-fou-port" }>): void {
  try {
    host.fou()?.delete(port);
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
}

/** Goes on after failures; gives the commands for what is left. */
function takeBack(host: TunnelHost, steps: readonly Undo[]): string[] {
  const leftovers: string[] = [];
  for (const step of steps) {
    try {
      perform(host, step, new Map());
    } catch {
      leftovers.push(formatStep(step));
    }
  }
  return leftovers;
}
