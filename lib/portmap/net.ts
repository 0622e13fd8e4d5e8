/** The network as port mapping needs it; {@link systemNet} is the real one. */
import { type Endpoint, type Ip, parseIp } from "../addr.ts";
import { type ByteStream, connectTcp } from "../byte_stream.ts";
import type { Datagram } from "../edges.ts";

export interface UdpSocket extends Disposable {
  /** A datagram that cannot be sent is lost, like any other on the way. */
  send(bytes: Uint8Array, to: Endpoint): void;
  /** Undefined when the socket is closed, or cannot receive any more. */
  receive(): Promise<Datagram | undefined>;
}

export interface PortMapNet {
  /** A socket on a free port of this address, which multicast leaves by too. */
  openUdp(local: Ip): UdpSocket;
  /** A socket for what is sent to a multicast group; undefined where there can be none. */
  openMulticast(group: Endpoint): UdpSocket | undefined;
  /** Not `fetch`, which writes all names of headers in lower case, and is strict with answers. */
  connect(to: Endpoint, signal: AbortSignal): Promise<ByteStream>;
}

export const systemNet: PortMapNet = {
  openUdp: (local) => open({ ip: local, port: 0 }, false),
  openMulticast(group) {
    try {
      return open(group, true);
    } catch {
      return undefined;
    }
  },
  connect: connectTcp,
};

/** `isShared`: other programs may have the same port. */
function open({ ip: hostname, port }: Endpoint, isShared: boolean): UdpSocket {
  const options = { transport: "udp", hostname, port, reuseAddress: isShared } as const;
  const socket = Deno.listenDatagram(options);
  let isClosed = false;
  return {
    send(bytes, { ip: hostname, port }) {
      socket.send(bytes, { transport: "udp", hostname, port }).catch(() => {});
    },
    async receive() {
      try {
        const [bytes, address] = await socket.receive();
        const { hostname, port } = address as Deno.NetAddr;
        return { bytes, from: { ip: parseIp(hostname), port } };
      } catch {
        return undefined;
      }
    },
    [Symbol.dispose]() {
      if (!isClosed) socket.close();
      isClosed = true;
    },
  };
}
