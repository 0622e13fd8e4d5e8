/**
 * A kernel's end of netlink without a kernel: a function from one request to the datagrams that
 * answer it, and a small one that behaves: it holds links.
 */
import { concatBytes, Reader, Writer } from "../../lib/bytes.ts";
import { attr, decodeAttrs, encodeAttrs, value } from "../../lib/netlink/attr.ts";
import { RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK } from "../../lib/netlink/link.ts";
import {
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  type NetlinkReply,
  type NetlinkTransport,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_MULTI,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_HDRLEN,
} from "../../lib/netlink/message.ts";

const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;
export const FAKE_PORT_ID = 4711;

/** The datagrams that answer a request; an `Error` among them is thrown by `receive`. */
export type FakeKernel = (request: NetlinkReply) => (Uint8Array | Error)[];

export class FakeTransport implements NetlinkTransport {
  readonly portId = FAKE_PORT_ID;
  /** All that was sent, in order. */
  readonly requests: NetlinkReply[] = [];
  isClosed = false;
  readonly #kernel: FakeKernel;
  readonly #pending: (Uint8Array | Error)[] = [];

  constructor(kernel: FakeKernel) {
    this.#kernel = kernel;
  }

  send(bytes: Uint8Array): void {
    for (const request of decodeMessages(bytes)) {
      this.requests.push(request);
      this.#pending.push(...this.#kernel(request));
    }
  }

  receive(): Uint8Array {
    const next = this.#pending.shift();
    if (next === undefined) throw new Error("the fake kernel has nothing more to say");
    if (next instanceof Error) throw next;
    return next;
  }

  [Symbol.dispose](): void {
    this.isClosed = true;
  }
}

/** A message that answers `request`, unless `change` makes it answer another one. */
export function reply(request: NetlinkMessage, change: Partial<NetlinkReply>): Uint8Array {
  const { sequence } = request;
  const message = { type: 0, flags: 0, sequence, payload: new Uint8Array(), ...change };
  const bytes = encodeMessage(message);
  const PORT_ID_OFFSET = 12;
  bytes.set(u32(change.portId ?? FAKE_PORT_ID), PORT_ID_OFFSET);
  return bytes;
}

export interface AckOptions {
  /** 0, the default: done as asked. */
  errno?: number;
  /** The kernel's own words. */
  extack?: string;
  /** Whether only the header of the request is quoted; so it is with NETLINK_CAP_ACK. */
  isCapped?: boolean;
}

/** `struct nlmsgerr`: errno, the request's header or all of it, then the attributes of the ack. */
export function ack(request: NetlinkMessage, options: AckOptions = {}): Uint8Array {
  const { errno = 0, extack, isCapped = true } = options;
  const whole = encodeMessage(request);
  const quoted = isCapped ? whole.subarray(0, NLMSG_HDRLEN) : whole;
  const attrs = extack === undefined
    ? new Uint8Array()
    : encodeAttrs([attr.u32(NLMSGERR_ATTR_OFFS, 16), attr.string(NLMSGERR_ATTR_MSG, extack)]);
  const flags = (isCapped ? NLM_F_CAPPED : 0) | (extack === undefined ? 0 : NLM_F_ACK_TLVS);
  return reply(request, {
    type: NLMSG_ERROR,
    flags,
    payload: concatBytes(i32(-errno), quoted, attrs),
  });
}

/** The end of a dump; with an errno, of one that failed under way. */
export function done(request: NetlinkMessage, options: AckOptions = {}): Uint8Array {
  const { errno = 0, extack } = options;
  const attrs = extack === undefined
    ? new Uint8Array()
    : encodeAttrs([attr.string(NLMSGERR_ATTR_MSG, extack)]);
  const flags = NLM_F_MULTI | (extack === undefined ? 0 : NLM_F_ACK_TLVS);
  return reply(request, { type: NLMSG_DONE, flags, payload: concatBytes(i32(-errno), attrs) });
}

const u32 = (n: number) => new Writer("host").u32(n).finish();
const i32 = (n: number) => new Writer("host").i32(n).finish();

const IFLA_IFNAME = 3;
const IFLA_LINKINFO = 18;
const IFLA_INFO_DATA = 2;
/** IFLA_GRE_ENCAP_TYPE to IFLA_GRE_ENCAP_DPORT. */
const ENCAP_FIRST = 14;
const ENCAP_LAST = 17;
const ENODEV = 19;
const EEXIST = 17;
const EOPNOTSUPP = 95;
/** `struct ifinfomsg`. */
const IFINFO_LENGTH = 16;

interface FakeLink {
  ifindex: number;
  flags: number;
  attrs: Map<number, Uint8Array>;
}

/**
 * rtnetlink's links: what was set of a link is what is read of it. `refuse` may name an errno for
 * a request that the kernel would have taken.
 */
export function linkKernel(refuse: (request: NetlinkReply) => number = () => 0): FakeKernel {
  const links: FakeLink[] = [];
  const find = (ifindex: number, name: string | undefined) =>
    links.find((l) => ifindex ? l.ifindex === ifindex : nameOf(l.attrs) === name);
  return (request) => {
    const { ifindex, flags, change, attrs } = decodeIfInfo(request.payload);
    const link = find(ifindex, nameOf(attrs));
    const refused = refuse(request);
    if (refused) return [ack(request, { errno: refused })];
    if ((request.flags & NLM_F_DUMP) === NLM_F_DUMP && request.type === RTM_GETLINK) {
      return [...links.map((l) => encodeFakeLink(request, l, NLM_F_MULTI)), done(request)];
    }
    if (request.type === RTM_NEWLINK && (request.flags & NLM_F_CREATE) && !link) {
      links.push({ ifindex: links.length + 2, flags: flags & change, attrs });
      return [ack(request)];
    }
    if (!link) return [ack(request, { errno: ENODEV })];
    switch (request.type) {
      case RTM_NEWLINK:
        if (request.flags & NLM_F_EXCL) return [ack(request, { errno: EEXIST })];
        link.flags = (link.flags & ~change) | (flags & change);
        for (const [type, value] of attrs) link.attrs.set(type, merged(type, link, value));
        return [ack(request)];
      case RTM_GETLINK:
        return [encodeFakeLink(request, link, 0), ack(request)];
      case RTM_DELLINK:
        links.splice(links.indexOf(link), 1);
        return [ack(request)];
      default:
        return [ack(request, { errno: EOPNOTSUPP })];
    }
  };
}

/** A change of a tunnel resets what it leaves out, but for the encapsulation (ip_gre.c). */
function merged(type: number, link: FakeLink, value: Uint8Array): Uint8Array {
  const old = link.attrs.get(type);
  if (type !== IFLA_LINKINFO || !old) return value;
  const info = decodeAttrs(value);
  const kept = [...dataOf(decodeAttrs(old))].filter(([t]) => t >= ENCAP_FIRST && t <= ENCAP_LAST);
  return encodeMap(info.set(IFLA_INFO_DATA, encodeMap(new Map([...kept, ...dataOf(info)]))));
}

const dataOf = (info: Map<number, Uint8Array>) =>
  decodeAttrs(info.get(IFLA_INFO_DATA) ?? new Uint8Array());

const encodeMap = (attrs: Map<number, Uint8Array>) =>
  encodeAttrs([...attrs].map(([type, value]) => ({ type, value })));

const nameOf = (attrs: Map<number, Uint8Array>) => value.string(attrs.get(IFLA_IFNAME));

function decodeIfInfo(payload: Uint8Array) {
  const reader = new Reader(payload, "host").skip(4);
  const [ifindex, flags, change] = [reader.i32(), reader.u32(), reader.u32()];
  return { ifindex, flags, change, attrs: decodeAttrs(reader.bytes()) };
}

function encodeFakeLink(request: NetlinkMessage, link: FakeLink, flags: number): Uint8Array {
  const payload = new Writer("host", IFINFO_LENGTH).zeros(4).i32(link.ifindex).u32(link.flags)
    .u32(0).bytes(encodeMap(link.attrs)).finish();
  return reply(request, { type: RTM_NEWLINK, flags, payload });
}
