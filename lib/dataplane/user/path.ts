/**
 * How packets get from devices to sockets and back: one by one in this thread (`codec_path.ts`), or
 * in threads of their own (`engine_path.ts`).
 */
import type { Family } from "../../addr.ts";
import type { SendDatagram } from "../../edges.ts";
import type { ExtraPort, PlaneOptions, PlaneRefusal, PlaneThreads, WantedLink } from "../plane.ts";

export interface PathOptions extends PlaneOptions {
  /** Datagrams that are too large for the way may be cut up. */
  allowFragments?: boolean;
}

/** A device that carries nothing until it is told for which link. */
export interface PathDevice extends Disposable {
  readonly name: string;
  set(link: WantedLink, mtu: number): void;
}

export interface PacketPath extends AsyncDisposable {
  readonly port: number;
  readonly families: readonly Family[];
  /** Of signalling. */
  readonly send: SendDatagram;
  openPort(): ExtraPort;
  /** Throws `SystemError`. */
  openDevice(ifname: string): PathDevice;
  /** Packets, by reason. */
  refused(): Map<PlaneRefusal, number>;
  /** Absent where there are none. */
  threads?(): PlaneThreads;
  whileWaiting?(): void;
}
