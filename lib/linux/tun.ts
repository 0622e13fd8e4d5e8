/** TUN devices (linux/if_tun.h): IP packets in and out of this process. */
import { concatBytes, Writer } from "../bytes.ts";
import { check, cString, Fd, libc, O_CLOEXEC, O_NONBLOCK, O_RDWR, SystemError } from "./libc.ts";
import { bulk } from "./bulk.ts";
import { loadModule } from "./modules.ts";

const TUNSETIFF = 0x400454ca;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const TUNSETOFFLOAD = 0x400454d0;
/** What this process does for the kernel: checksums, and cutting TCP and UDP (TUN_F_ constants). */
const OFFLOADS = [
  { bits: 0x6f, cutsUdp: true }, // CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6
  { bits: 0x0f, cutsUdp: false },
  { bits: 0x01, cutsUdp: false },
  { bits: 0x00, cutsUdp: false },
] as const;
const IFNAMSIZ = 16;
/** `struct ifreq`, 64-bit. */
const IFREQ_LENGTH = 40;

/** Throws `SystemError`: ENOENT or ENODEV where the kernel has no TUN. */
export function tryTun(): void {
  openCloneDevice()[Symbol.dispose]();
}

/** Loads the module where the kernel has it as one. */
function openCloneDevice(): Fd {
  try {
    return tryOpenCloneDevice();
  } catch (error) {
    const isMissing = error instanceof SystemError && ["ENOENT", "ENODEV"].includes(error.code);
    if (!isMissing || !loadModule("tun")) throw error;
    return tryOpenCloneDevice();
  }
}

function tryOpenCloneDevice(): Fd {
  const path = cString("/dev/net/tun");
  return new Fd(check("open /dev/net/tun", libc().open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)));
}

function makeDevice(fd: number, name: string): void {
  const flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  const ifreq = new Writer("host", IFREQ_LENGTH).bytes(cString(name))
    .zeros(IFNAMSIZ - name.length - 1).u16(flags).zeros(IFREQ_LENGTH - IFNAMSIZ - 2).finish();
  check(`make TUN device ${name}`, libc().ioctl(fd, BigInt(TUNSETIFF), ifreq));
}

export interface BulkTun {
  fd: Fd;
  /** Whether super-packets of UDP come and go; else of TCP at most. */
  cutsUdp: boolean;
}

/**
 * A device whose packets have a `virtio_net_hdr` before them and may be super-packets, as far as
 * this kernel knows them. Whoever reads does so by itself.
 */
export function openBulkTun(name: string): BulkTun {
  const fd = openCloneDevice();
  try {
    makeDevice(fd.fd, name);
    const offload = OFFLOADS.find(({ bits }) =>
      bulk().ioctlValue(fd.fd, TUNSETOFFLOAD, bits) !== -1
    );
    return { fd, cutsUdp: offload?.cutsUdp ?? false };
  } catch (error) {
    fd[Symbol.dispose]();
    throw error;
  }
}

/** `struct virtio_net_hdr` of a packet that stands for itself. */
const WHOLE = new Uint8Array(10);

/** Hands a packet to the kernel; false when it does not take it. */
export function writeBulkTun(fd: Fd, packet: Uint8Array): boolean {
  const bytes = concatBytes(WHOLE, packet) as Uint8Array<ArrayBuffer>;
  return libc().write(fd.fd, bytes, BigInt(bytes.length)) !== -1n;
}
