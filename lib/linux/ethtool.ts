/** What a link leaves to the hardware below it (linux/ethtool.h). */
import { Writer } from "../bytes.ts";
import { AF_INET, check, cString, libc, openSocket, SOCK_DGRAM } from "./libc.ts";

const SIOCETHTOOL = 0x8946;
const ETHTOOL_STXCSUM = 0x17;
const IFNAMSIZ = 16;
/** `struct ifreq`, 64-bit. */
const IFREQ_LENGTH = 40;

/**
 * Whether checksums of what is sent by the link are left to be filled in later. Without, the kernel
 * does that before the link, and cuts up what is longer than its MTU. Throws `SystemError`.
 */
export function setChecksumOffload(ifname: string, isOn: boolean): void {
  using socket = openSocket(AF_INET, SOCK_DGRAM, 0);
  const value = new Writer("host", 8).u32(ETHTOOL_STXCSUM).u32(isOn ? 1 : 0).finish();
  const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(value)));
  const name = cString(ifname);
  const ifreq = new Writer("host", IFREQ_LENGTH).bytes(name).zeros(IFNAMSIZ - name.length)
    .u64(address).zeros(IFREQ_LENGTH - IFNAMSIZ - 8).finish();
  check(`set checksums of ${ifname}`, libc().ioctl(socket.fd, BigInt(SIOCETHTOOL), ifreq));
}
