/** The kernel as this room meets it: one place to open it, and to hand in another in tests. */
import type { Family } from "../addr.ts";
import {
  fileLocks,
  listKernelDirectory,
  loadModule,
  type Locks,
  SystemError,
  udpPortOwner,
} from "../linux/mod.ts";
import { Fou, hasCode, RtNetlink } from "../netlink.ts";

export interface TunnelHost extends Disposable {
  readonly rtnl: RtNetlink;
  /** Undefined while the kernel has no FOU; asks again each time until it has. */
  fou(): Fou | undefined;
  loadedModules(): ReadonlySet<string>;
  /** Whether the module is there afterwards. */
  loadModule(name: string): boolean;
  /** The program that has the UDP port; undefined where nobody or the kernel has it. */
  udpPortOwner(port: number, family: Family): string | undefined;
  readonly locks: Locks;
}

/** Of the calling thread's network namespace. */
export function openHost(): TunnelHost {
  return new KernelHost(RtNetlink.open());
}

class KernelHost implements TunnelHost {
  readonly rtnl: RtNetlink;
  readonly loadModule = loadModule;
  readonly udpPortOwner = udpPortOwner;
  readonly locks = fileLocks();
  #fou: Fou | undefined;

  constructor(rtnl: RtNetlink) {
    this.rtnl = rtnl;
  }

  fou(): Fou | undefined {
    return this.#fou ??= openFou();
  }

  loadedModules(): ReadonlySet<string> {
    try {
      return new Set(listKernelDirectory("/sys/module"));
    } catch (error) {
      if (error instanceof SystemError) return new Set(); // no sysfs: loading one twice is harmless
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#fou?.[Symbol.dispose]();
    this.rtnl[Symbol.dispose]();
  }
}

/** The kernel has no family of that name as long as the module is not loaded. */
export function openFou(open: () => Fou = Fou.open): Fou | undefined {
  try {
    return open();
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}
