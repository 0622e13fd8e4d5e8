/** Netlink over a fake kernel: framing, acks, dumps, errors, and what the calls send. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { constants } from "node:os";
import { parseCidr, parseIp } from "../../../lib/addr.ts";
import {
  concatBytes,
  fromHex,
  Reader,
  ShortInputError,
  toHex,
  Writer,
} from "../../../lib/bytes.ts";
import { GretunError } from "../../../lib/errors.ts";
import { SystemError } from "../../../lib/linux/mod.ts";
import { Fou, type FouPort, NetlinkError, RtNetlink, type Tunnel } from "../../../lib/netlink.ts";
import {
  attr,
  decodeAttrList,
  decodeAttrs,
  encodeAttrs,
  NLA_F_NESTED,
  NLA_F_NET_BYTEORDER,
  value,
} from "../../../lib/netlink/attr.ts";
import { decodeLink, RTM_NEWLINK } from "../../../lib/netlink/link.ts";
import {
  decodeMessages,
  encodeMessage,
  NetlinkConnection,
  NetlinkFormatError,
  type NetlinkReply,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_EXCL,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} from "../../../lib/netlink/message.ts";
import {
  ack,
  done,
  FAKE_PORT_ID,
  type FakeKernel,
  FakeTransport,
  linkKernel,
  reply,
} from "../../fakes/kernel.ts";

const DATA = 100;
const REQUEST = { type: DATA, payload: fromHex("01020304"), operation: "do it" };
const EBUSY = 16;
const ENOBUFS = 105;

const data = (request: NetlinkReply, hex: string, flags = 0) =>
  reply(request, { type: DATA, flags, payload: fromHex(hex) });

function connect(kernel: FakeKernel): { connection: NetlinkConnection; transport: FakeTransport } {
  const transport = new FakeTransport(kernel);
  return { connection: new NetlinkConnection(transport), transport };
}

/** The payloads that a request brings. */
const request = (kernel: FakeKernel) =>
  connect(kernel).connection.request(REQUEST).map(({ payload }) => toHex(payload));
const dump = (kernel: FakeKernel) =>
  connect(kernel).connection.dump(REQUEST).map(({ payload }) => toHex(payload));

/** xorshift32: the same "random" bytes in every run. */
function seededRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

// --- requests and acks

Deno.test("request() sends the flags that it must, and counts up its sequence", () => {
  const { connection, transport } = connect((r) => [ack(r)]);
  connection.request(REQUEST);
  connection.request({ ...REQUEST, flags: NLM_F_CREATE | NLM_F_EXCL });
  const [first, second] = transport.requests;
  deepStrictEqual(first, {
    type: DATA,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    sequence: first!.sequence,
    portId: 0,
    payload: REQUEST.payload,
  });
  strictEqual(second!.flags, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  strictEqual(second!.sequence, first!.sequence + 1);
});

Deno.test("request() gives the replies before the ack, however they are cut into datagrams", () => {
  const cases: [string, FakeKernel, string[]][] = [
    ["ack alone", (r) => [ack(r)], []],
    ["reply and ack apart", (r) => [data(r, "aa"), ack(r)], ["aa"]],
    ["reply and ack in one", (r) => [concatBytes(data(r, "aabb"), ack(r))], ["aabb"]],
    ["two replies", (r) => [concatBytes(data(r, "aa"), data(r, "bb")), ack(r)], ["aa", "bb"]],
    ["unaligned payload", (r) => [concatBytes(data(r, "aabbcc"), ack(r))], ["aabbcc"]],
    ["empty datagram first", (r) => [new Uint8Array(), ack(r)], []],
  ];
  for (const [name, kernel, expected] of cases) deepStrictEqual(request(kernel), expected, name);
});

const FOREIGN: [string, (r: NetlinkReply) => Partial<NetlinkReply>][] = [
  ["an earlier sequence", (r) => ({ sequence: r.sequence - 1 })],
  ["a later sequence", (r) => ({ sequence: r.sequence + 1 })],
  ["sequence 0, as announcements have", () => ({ sequence: 0 })],
  ["another port id", () => ({ portId: FAKE_PORT_ID + 1 })],
  ["port id 0", () => ({ portId: 0 })],
];

for (const [name, change] of FOREIGN) {
  Deno.test(`request() and dump() pass over replies with ${name}`, () => {
    const failure = new Writer("host").i32(-EBUSY).zeros(16).finish();
    const foreign = (r: NetlinkReply) => [
      reply(r, { type: DATA, payload: fromHex("eeee"), ...change(r) }),
      reply(r, { type: NLMSG_ERROR, payload: failure, ...change(r) }),
      reply(r, { type: NLMSG_DONE, payload: failure, ...change(r) }),
    ];
    deepStrictEqual(request((r) => [...foreign(r), data(r, "aa"), ack(r)]), ["aa"]);
    deepStrictEqual(request((r) => [concatBytes(...foreign(r), ack(r))]), []);
    deepStrictEqual(dump((r) => [...foreign(r), data(r, "aa"), done(r)]), ["aa"]);
  });
}

Deno.test("a request after a failed one is not answered by what was left of it", () => {
  let count = 0;
  const { connection } = connect((r) =>
    ++count === 1 ? [ack(r, { errno: EBUSY }), data(r, "01"), ack(r)] : [data(r, "02"), ack(r)]
  );
  throws(() => connection.request(REQUEST), { code: "EBUSY" });
  deepStrictEqual(connection.request(REQUEST).map(({ payload }) => toHex(payload)), ["02"]);
});

// --- errors

Deno.test("NetlinkError has operation, code, and the kernel's own words", () => {
  const extack = "Device can not be enslaved while up";
  const cases: [string, FakeKernel, string][] = [
    ["no extended ack", (r) => [ack(r, { errno: EBUSY })], "cannot do it: EBUSY"],
    ["capped", (r) => [ack(r, { errno: EBUSY, extack })], `cannot do it: ${extack} (EBUSY)`],
    [
      "with the whole request quoted",
      (r) => [ack(r, { errno: EBUSY, extack, isCapped: false })],
      `cannot do it: ${extack} (EBUSY)`,
    ],
  ];
  for (const [name, kernel, message] of cases) {
    throws(() => request(kernel), (error) => {
      ok(error instanceof NetlinkError && error instanceof GretunError, name);
      const { operation, errno, code } = error;
      deepStrictEqual({ operation, errno, code }, { operation: "do it", errno: 16, code: "EBUSY" });
      strictEqual(error.message, message, name);
      strictEqual(error.extack, name === "no extended ack" ? undefined : extack);
      ok(error.hint.length > 0);
      return true;
    });
  }
});

Deno.test("an extended ack behind a request of odd length is found", () => {
  const payload = fromHex("0102030405");
  const { connection } = connect((r) => [
    ack({ ...r, payload }, { errno: EBUSY, extack: "words", isCapped: false }),
  ]);
  throws(() => connection.request({ ...REQUEST, payload }), { extack: "words" });
});

Deno.test("a warning in the ack of what was done is no error", () => {
  deepStrictEqual(request((r) => [ack(r, { extack: "deprecated" })]), []);
});

Deno.test("NetlinkError.code is the errno's name, or its number where nobody asks for it", () => {
  const mustBeNamed = [
    ...["EPERM", "ENOENT", "EACCES", "EBUSY", "EEXIST", "ENODEV", "EINVAL", "ENOSPC", "ERANGE"],
    ...["EOPNOTSUPP", "EAFNOSUPPORT", "EADDRINUSE", "EADDRNOTAVAIL", "ENETDOWN", "ENETUNREACH"],
    ...["ENOBUFS", "EHOSTUNREACH"],
  ];
  const names = new Map<number, string[]>();
  for (const [name, errno] of Object.entries(constants.errno)) {
    names.set(errno, [...(names.get(errno) ?? []), name]);
  }
  for (const [errno, aliases] of names) {
    const code = codeOf(errno);
    ok(aliases.includes(code) || code === `errno ${errno}`, code);
    const named = mustBeNamed.find((name) => aliases.includes(name));
    if (named) strictEqual(code, named);
  }
  strictEqual(codeOf(524), "errno 524"); // ENOTSUPP, which is the kernel's own
});

function codeOf(errno: number): string {
  try {
    request((r) => [ack(r, { errno })]);
  } catch (error) {
    return (error as NetlinkError).code;
  }
  throw new Error(`errno ${errno} was taken for success`);
}

Deno.test("a receive that fails is passed on, and the connection can be used again", () => {
  let count = 0;
  const { connection } = connect((r) =>
    ++count === 1 ? [new SystemError("recvmsg", ENOBUFS), ack(r)] : [data(r, "02"), ack(r)]
  );
  throws(() => connection.request(REQUEST), { name: "SystemError", code: "ENOBUFS" });
  deepStrictEqual(connection.request(REQUEST).map(({ payload }) => toHex(payload)), ["02"]);
});

Deno.test("disposing of a connection closes its transport", () => {
  const { connection, transport } = connect((r) => [ack(r)]);
  connection[Symbol.dispose]();
  ok(transport.isClosed);
});

// --- dumps

Deno.test("dump() gathers the parts until the end", () => {
  const part = (r: NetlinkReply, hex: string) => data(r, hex, NLM_F_MULTI);
  const cases: [string, FakeKernel, string[]][] = [
    ["nothing", (r) => [done(r)], []],
    ["one datagram", (r) => [concatBytes(part(r, "01"), part(r, "02"), done(r))], ["01", "02"]],
    ["many datagrams", (r) => [part(r, "01"), part(r, "02"), done(r)], ["01", "02"]],
    ["an end without a status", (r) => [part(r, "01"), reply(r, { type: NLMSG_DONE })], ["01"]],
  ];
  for (const [name, kernel, expected] of cases) deepStrictEqual(dump(kernel), expected, name);
  const { connection, transport } = connect((r) => [done(r)]);
  connection.dump(REQUEST);
  strictEqual(transport.requests[0]!.flags, NLM_F_REQUEST | NLM_F_DUMP);
});

Deno.test("dump() takes one that changed under way again, with a new sequence", () => {
  const flags = NLM_F_MULTI | NLM_F_DUMP_INTR;
  const interrupted: [string, FakeKernel][] = [
    ["in the first part", (r) => [data(r, "01", flags), data(r, "02", NLM_F_MULTI), done(r)]],
    [
      "in the last message",
      (r) => [data(r, "01", NLM_F_MULTI), reply(r, { type: NLMSG_DONE, flags })],
    ],
  ];
  for (const [name, kernel] of interrupted) {
    const { connection, transport } = connect((r) =>
      transport.requests.length < 3 ? kernel(r) : [data(r, "03", NLM_F_MULTI), done(r)]
    );
    const parts = connection.dump(REQUEST).map(({ payload }) => toHex(payload));
    deepStrictEqual(parts, ["03"], name);
    strictEqual(new Set(transport.requests.map(({ sequence }) => sequence)).size, 3, name);
  }
  const always = connect((r) => [data(r, "01", flags), done(r)]);
  throws(() => always.connection.dump(REQUEST), NetlinkFormatError);
  strictEqual(always.transport.requests.length, 5);
});

Deno.test("dump() fails with the kernel's reason, at the start or under way", () => {
  const extack = "no such thing";
  const cases: [string, FakeKernel, string | undefined][] = [
    ["refused", (r) => [ack(r, { errno: EBUSY })], undefined],
    ["refused with words", (r) => [ack(r, { errno: EBUSY, extack })], extack],
    ["under way", (r) => [data(r, "01", NLM_F_MULTI), done(r, { errno: EBUSY })], undefined],
    [
      "under way with words",
      (r) => [data(r, "01", NLM_F_MULTI), done(r, { errno: EBUSY, extack })],
      extack,
    ],
  ];
  for (const [name, kernel, words] of cases) {
    throws(() => dump(kernel), (error) => {
      ok(error instanceof NetlinkError && error.code === "EBUSY", name);
      strictEqual(error.extack, words, name);
      return true;
    });
  }
});

// --- bytes that are not what they say

Deno.test("decodeMessages() and encodeMessage() are each other's inverse", () => {
  const message = { type: 16, flags: 5, sequence: 0xfffffffe, payload: fromHex("010203") };
  const bytes = encodeMessage(message);
  strictEqual(bytes.length, 20);
  deepStrictEqual(decodeMessages(concatBytes(bytes, bytes)), [
    { ...message, portId: 0 },
    { ...message, portId: 0 },
  ]);
});

Deno.test("replies that are cut, too long or garbage are errors, not wrong results", () => {
  const cut = (bytes: Uint8Array, by: number) => bytes.subarray(0, bytes.length - by);
  const lengthened = (bytes: Uint8Array, length: number) =>
    concatBytes(new Writer("host").u32(length).finish(), bytes.subarray(4));
  const cases: [string, FakeKernel][] = [
    ["a message cut in its payload", (r) => [cut(data(r, "01020304"), 1)]],
    ["a length beyond the datagram", (r) => [lengthened(data(r, "01020304"), 24)]],
    ["a length of 4 GB", (r) => [lengthened(data(r, "01020304"), 0xffffffff)]],
    ["a length of 0", (r) => [lengthened(data(r, "01020304"), 0)]],
    ["a length shorter than its header", (r) => [lengthened(data(r, "01020304"), 15)]],
    ["a good message before a cut one", (r) => [concatBytes(data(r, "01"), cut(ack(r), 1))]],
  ];
  for (const [name, kernel] of cases) {
    throws(() => request(kernel), NetlinkFormatError, name);
    throws(() => dump(kernel), NetlinkFormatError, name);
  }
  throws(
    () => request((r) => [reply(r, { type: NLMSG_ERROR, payload: fromHex("00") })]),
    ShortInputError,
  );
});

Deno.test("random bytes for replies end in a typed error or are no answer", () => {
  const below = seededRandom(1);
  for (let i = 0; i < 20_000; i++) {
    const kernel: FakeKernel = (r) => {
      const payload = Uint8Array.from({ length: below(60) }, () => below(256));
      const whole = reply(r, { type: below(4), flags: below(0x400), payload });
      if (i % 2 === 0) whole[below(whole.length)]! ^= 1 << below(8);
      return [whole, ack(r), done(r)];
    };
    for (const call of [request, dump]) {
      try {
        call(kernel);
      } catch (error) {
        const typed = [NetlinkError, NetlinkFormatError, ShortInputError];
        ok(typed.some((type) => error instanceof type), String(error));
      }
    }
  }
});

// --- attributes

Deno.test("attributes: length and type in host order, values as each says, padded to 4", () => {
  const bytes = encodeAttrs([
    attr.u16(1, 0x0102),
    attr.be16(2, 0x0102),
    attr.be32(3, 0x01020304),
    attr.string(4, "abc"),
    attr.flag(5),
    attr.nested(6, [attr.u8(1, 7)]),
    attr.plainNest(7, [attr.u8(1, 7)]),
  ]);
  strictEqual(bytes.length % 4, 0);
  const list = decodeAttrList(bytes);
  deepStrictEqual(list.map(({ type }) => type), [1, 2, 3, 4, 5, 6, 7]);
  strictEqual(new Reader(list[0]!.value, "host").u16(), 0x0102);
  deepStrictEqual(
    [list[1], list[2], list[3], list[4]].map((a) => toHex(a!.value)),
    ["0102", "01020304", "61626300", ""],
  );
  for (const nest of [list[5]!, list[6]!]) strictEqual(value.u8(decodeAttrs(nest.value).get(1)), 7);
  strictEqual(attr.nested(6, []).type, 6 | NLA_F_NESTED);
});

Deno.test("decodeAttrs() knows a type with its flag bits; the last of a repeated one counts", () => {
  const attrs = decodeAttrs(encodeAttrs([
    { type: 1 | NLA_F_NET_BYTEORDER, value: fromHex("1e61") },
    { type: 2 | NLA_F_NESTED, value: encodeAttrs([attr.u32(1, 9)]) },
    attr.u8(3, 1),
    attr.u8(3, 2),
  ]));
  strictEqual(value.be16(attrs.get(1)), 7777);
  strictEqual(value.u32(decodeAttrs(attrs.get(2)!).get(1)), 9);
  strictEqual(value.u8(attrs.get(3)), 2);
  strictEqual(value.u8(attrs.get(4)), undefined);
});

Deno.test("decodeAttrs() takes a last attribute without padding, and refuses broken lengths", () => {
  const bytes = encodeAttrs([attr.u8(1, 7)]);
  strictEqual(value.u8(decodeAttrs(bytes.subarray(0, 5)).get(1)), 7);
  throws(() => decodeAttrs(bytes.subarray(0, 4)), ShortInputError);
  for (const length of [0, 3, 9, 0xffff]) {
    const broken = concatBytes(new Writer("host").u16(length).finish(), bytes.subarray(2));
    throws(() => decodeAttrs(broken), ShortInputError, `length ${length}`);
  }
  throws(() => value.u32(fromHex("01")), ShortInputError);
});

// --- rtnetlink

const openLinks = (refuse?: (request: NetlinkReply) => number) =>
  RtNetlink.open(new FakeTransport(linkKernel(refuse)));

const GRE: Tunnel = {
  local: parseIp("192.0.2.1"),
  remote: parseIp("192.0.2.2"),
  ikey: 0xdeadbeef,
  okey: 1,
  ttl: 64,
  tos: 0,
  pmtudisc: false,
  device: 7,
  encap: { type: "fou", sport: 7777, dport: 8888, csum: true },
};

Deno.test("RtNetlink reads back the links that it made", () => {
  const gres: [string, Tunnel][] = [
    ["all settings", GRE],
    ["no encapsulation, no key, no local", {
      remote: parseIp("192.0.2.2"),
      ttl: 0,
      tos: 0,
      pmtudisc: true,
    }],
    ["GUE with the source port left to the kernel", {
      ...GRE,
      encap: { type: "gue", sport: 0, dport: 1, csum: false },
    }],
    ["key 0, which is a key", { ...GRE, ikey: 0, okey: 0 }],
  ];
  for (const [name, gre] of gres) {
    using rtnl = openLinks();
    const ifindex = rtnl.createLink({ name: "t0", kind: "gre", tunnel: gre, mtu: 1468, up: true });
    const link = rtnl.link(ifindex)!;
    deepStrictEqual(link.tunnel, gre, name);
    deepStrictEqual([link.name, link.kind, link.mtu, link.up], ["t0", "gre", 1468, true], name);
    deepStrictEqual(rtnl.links(), [link], name);
  }
});

Deno.test("RtNetlink.changeLink() takes local address, keys and encapsulation away", () => {
  using rtnl = openLinks();
  const ifindex = rtnl.createLink({ name: "t0", kind: "gre", tunnel: GRE });
  const plain: Tunnel = { remote: GRE.remote, ttl: 64, tos: 0, pmtudisc: true };
  rtnl.changeLink(ifindex, { tunnel: { kind: "gre", ...plain } });
  deepStrictEqual(rtnl.link(ifindex)!.tunnel, plain);
});

Deno.test("RtNetlink gives an alias, and takes the link back when the alias is refused", () => {
  using rtnl = openLinks();
  rtnl.createLink({ name: "t0", kind: "dummy", alias: "mine" });
  strictEqual(rtnl.link("t0")!.alias, "mine");
  const isChange = (r: NetlinkReply) => r.type === RTM_NEWLINK && !(r.flags & NLM_F_CREATE);
  using refusing = openLinks((r) => isChange(r) ? EBUSY : 0);
  throws(
    () => refusing.createLink({ name: "t0", kind: "dummy", alias: "mine" }),
    { code: "EBUSY" },
  );
  deepStrictEqual(refusing.links(), []);
});

Deno.test("RtNetlink: a name in use, a link that is gone, other failures", () => {
  using rtnl = openLinks();
  const ifindex = rtnl.createLink({ name: "t0", kind: "dummy" });
  throws(() => rtnl.createLink({ name: "t0", kind: "dummy" }), { code: "EEXIST" });
  strictEqual(rtnl.link("t1"), undefined);
  rtnl.deleteLink(ifindex);
  throws(() => rtnl.deleteLink(ifindex), { code: "ENODEV", operation: `delete link ${ifindex}` });
  strictEqual(rtnl.link(ifindex), undefined);
  using refusing = openLinks(() => EBUSY);
  throws(() => refusing.link("t0"), { code: "EBUSY" });
});

Deno.test("RtNetlink adds what must be new with CREATE and EXCL, and changes without", () => {
  const transport = new FakeTransport((r) => [ack(r)]);
  using rtnl = RtNetlink.open(transport);
  const local = parseIp("100.64.0.1");
  rtnl.addAddress({ ifindex: 2, local, prefixLength: 32 });
  rtnl.addRoute({ destination: parseCidr("198.51.100.0/24"), device: 2 });
  rtnl.changeLink(2, { up: true });
  rtnl.deleteAddress({ ifindex: 2, local, prefixLength: 32 });
  const isNew = transport.requests.map(({ flags }) =>
    (flags & NLM_F_CREATE) !== 0 && (flags & NLM_F_EXCL) !== 0
  );
  deepStrictEqual(isNew, [true, true, false, false]);
});

Deno.test("decodeLink() reads a link that says nothing but its index", () => {
  const link = decodeLink(new Writer("host").zeros(4).i32(3).zeros(8).finish());
  deepStrictEqual([link.ifindex, link.name, link.kind, link.up], [3, "", undefined, false]);
  throws(() => decodeLink(fromHex("0000")), NetlinkFormatError);
});

// --- generic netlink and fou

const FOU_FAMILY = 0x1d;
const CTRL = 16;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const GENL_HEADER = 4;
const FOU_ADD = 1;
const FOU_DEL = 2;
const FOU_GET = 3;
const ENOENT = 2;
const EADDRINUSE = 98;

/** A kernel with a fou module, which holds ports by their bytes. */
function fouKernel(): FakeKernel {
  const ports = new Map<string, Uint8Array>();
  return (r) => {
    const [command, attrs] = [r.payload[0]!, r.payload.subarray(GENL_HEADER)];
    if (r.type === CTRL) {
      strictEqual(value.string(decodeAttrs(attrs).get(CTRL_ATTR_FAMILY_NAME)), "fou");
      const found = encodeAttrs([attr.u16(CTRL_ATTR_FAMILY_ID, FOU_FAMILY)]);
      return [reply(r, { type: CTRL, payload: concatBytes(fromHex("01020000"), found) }), ack(r)];
    }
    strictEqual(r.type, FOU_FAMILY);
    if (command === FOU_GET) {
      const parts = [...ports.values()].map((payload) =>
        reply(r, { type: FOU_FAMILY, flags: NLM_F_MULTI, payload })
      );
      return [...parts, done(r)];
    }
    const key = toHex(decodeAttrs(attrs).get(1)!);
    const errno = fouErrno(command, ports.has(key));
    if (errno === 0 && command === FOU_ADD) ports.set(key, r.payload.slice());
    if (errno === 0 && command === FOU_DEL) ports.delete(key);
    return [ack(r, { errno })];
  };
}

function fouErrno(command: number, isOpen: boolean): number {
  if (command === FOU_ADD) return isOpen ? EADDRINUSE : 0;
  return isOpen ? 0 : ENOENT;
}

Deno.test("Fou lists the ports that it opened, and closes them", () => {
  const ports: FouPort[] = [
    { port: 7777, family: 4, type: "direct", ipproto: 47 },
    { port: 7778, family: 4, type: "gue", local: parseIp("192.0.2.1"), ifindex: 3 },
    {
      port: 7779,
      family: 6,
      type: "direct",
      ipproto: 4,
      local: parseIp("2001:db8::1"),
      peer: parseIp("2001:db8::2"),
      peerPort: 9,
    },
  ];
  using fou = Fou.open(new FakeTransport(fouKernel()));
  for (const port of ports) fou.add(port);
  deepStrictEqual(fou.ports(), ports);
  throws(() => fou.add(ports[0]!), { code: "EADDRINUSE", operation: "open FOU port 7777" });
  for (const port of ports) fou.delete(port);
  deepStrictEqual(fou.ports(), []);
  throws(() => fou.delete(ports[0]!), { code: "ENOENT" });
});

Deno.test("Fou takes a port's zero values, as the kernel lists them, for unset", () => {
  const zeros = encodeAttrs([
    attr.be16(1, 7777),
    attr.u8(2, 2),
    attr.u8(3, 47),
    attr.u8(4, 1),
    attr.bytes(6, new Uint8Array(4)),
    attr.bytes(8, new Uint8Array(4)),
    attr.be16(10, 0),
    attr.u32(11, 0),
  ]);
  const kernel: FakeKernel = (r) =>
    r.type === CTRL
      ? fouKernel()(r)
      : [reply(r, { type: FOU_FAMILY, payload: concatBytes(fromHex("03010000"), zeros) }), done(r)];
  using fou = Fou.open(new FakeTransport(kernel));
  deepStrictEqual(fou.ports(), [{ port: 7777, family: 4, type: "direct", ipproto: 47 }]);
});

Deno.test("Fou.open() without the module says what to load, and closes its socket", () => {
  const transport = new FakeTransport((r) => [ack(r, { errno: ENOENT })]);
  throws(
    () => Fou.open(transport),
    (error) =>
      error instanceof NetlinkError && error.code === "ENOENT" &&
      /modprobe fou/.test(error.message),
  );
  ok(transport.isClosed);
});
