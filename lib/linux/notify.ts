/** Tells the service manager how this process is: sd_notify(3), one datagram a message. */
import { Writer } from "../bytes.ts";
import { AF_UNIX, libc, MSG_DONTWAIT, openSocket, SOCK_DGRAM } from "./libc.ts";

/** `struct sockaddr_un` holds a path of so many bytes. */
const MAX_PATH_LENGTH = 108;

/**
 * Sends `state`, such as "READY=1", to the socket that `NOTIFY_SOCKET` names; a path that begins with
 * "@" is an abstract one. A manager that does not listen is no error of ours: false.
 */
export function notifyManager(socketPath: string, state: string): boolean {
  const path = new TextEncoder().encode(socketPath);
  if (path.length === 0 || path.length >= MAX_PATH_LENGTH) return false;
  if (socketPath.startsWith("@")) path[0] = 0;
  const address = new Writer("host").u16(AF_UNIX).bytes(path).finish();
  const bytes = new TextEncoder().encode(state);
  using socket = openSocket(AF_UNIX, SOCK_DGRAM, 0);
  const size = BigInt(bytes.length);
  return libc().sendto(socket.fd, bytes, size, MSG_DONTWAIT, address, address.length) !== -1n;
}
