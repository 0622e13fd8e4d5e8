/** Every decoder of what comes from others, with right inputs to begin with: what fuzzing tries. */
import { crc32 } from "node:zlib";
import jsonc from "jsonc-parser";
import { formatEndpoint, parseCidr, parseEndpoint, parseIp } from "../lib/addr.ts";
import type { ByteStream } from "../lib/byte_stream.ts";
import { concatBytes, fromHex, toBase64 } from "../lib/bytes.ts";
import { parseConfig } from "../lib/config.ts";
import * as api from "../lib/coord/api.ts";
import { AuthError, readClaim } from "../lib/coord/auth.ts";
import { jsonOf } from "../lib/coord/body.ts";
import { HeadError, readHead as readRequestHead } from "../lib/coord/http_connection.ts";
import { BufferedReader, ConnectionEndedError } from "../lib/buffered_reader.ts";
import { Arena } from "../lib/engine/arena.ts";
import { HeaderReader } from "../lib/engine/encapsulation.ts";
import { DialError } from "../lib/dial/errors.ts";
import { readBody, readHead } from "../lib/dial/http_message.ts";
import { boxKey, decodeMessage, DiscoFormatError, open, readEnvelope } from "../lib/disco/mod.ts";
import { parseClientFile } from "../lib/hub/clients.ts";
import * as hub from "../lib/hub/protocol/gretun/wire.ts";
import { IPIPOU_SIGNALLING } from "../lib/hub/protocol/ipipou/wire.ts";
import { decodeJtunnel, parseJtunnelId } from "../lib/hub/protocol/jtunnel/wire.ts";
import type { DiscoKey, NodeKey } from "../lib/keys.ts";
import { isSignalling } from "../lib/linux/mod.ts";
import { decodeIpUdp, decodeUdp } from "../lib/linux/raw_udp.ts";
import { attr, encodeAttrs } from "../lib/netlink/attr.ts";
import { decodeAddress } from "../lib/netlink/addr.ts";
import { decodeLink } from "../lib/netlink/link.ts";
import { decodeMessages, NetlinkFormatError } from "../lib/netlink/message.ts";
import { decodeRoute } from "../lib/netlink/route.ts";
import { decodeStatsMessage, encodeStatsRequest } from "../lib/netlink/stats.ts";
import { decodeCounters } from "../lib/nft/expr.ts";
import { PolicyError } from "../lib/policy/document.ts";
import { readPolicy } from "../lib/policy/parse.ts";
import { PortMapFormatError } from "../lib/portmap/errors.ts";
import { IncomingAnswer } from "../lib/portmap/http_answer.ts";
import { decodeNatPmpAnswer } from "../lib/portmap/natpmp.ts";
import { decodePcpAnswer } from "../lib/portmap/pcp.ts";
import { decodeSearchAnswer } from "../lib/portmap/ssdp.ts";
import { decodeActionAnswer, decodeDescription, encodeAction } from "../lib/portmap/upnp_xml.ts";
import { readChannel } from "../lib/relay/channels.ts";
import { decodeGrant, encodeGrant, GrantFormatError, nodePair } from "../lib/relay/grants.ts";
import {
  decodeRelayMessage,
  encodeError,
  encodeHello,
  encodeRequest,
  encodeSuccess,
} from "../lib/relay/messages.ts";
import {
  decodeBindingAnswer,
  decodeBindingRequest,
  encodeBindingRequest,
} from "../lib/stun/binding.ts";
import { StunFormatError } from "../lib/stun/message.ts";
import { answerBinding } from "../lib/stun/mod.ts";
import {
  encodeFrame,
  MessageReader,
  OPCODE,
  WebSocketError,
  type WebSocketMessage,
} from "../lib/web_socket_frames.ts";
import type { Decoder } from "./fuzz.ts";
import { encodeGre } from "./gre.ts";
import disco from "./vectors/disco.json" with { type: "json" };
import hubVectors from "./vectors/hub.json" with { type: "json" };
import netlink from "./vectors/netlink.json" with { type: "json" };
import stun from "./vectors/stun-rfc5769.json" with { type: "json" };

const utf8 = (text: string) => new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;
const decoder = new TextDecoder();
const textOf = (bytes: Uint8Array) => decoder.decode(bytes);
const latin1 = (bytes: Uint8Array) => String.fromCharCode(...bytes);
const TX_ID = fromHex("000102030405060708090a0b");
const HOME = parseEndpoint("203.0.113.7:7777");
const KEY = "ab".repeat(32) as NodeKey;
const OTHER_KEY = "cd".repeat(32) as NodeKey;
const KEY_BASE64 = toBase64(fromHex(KEY));

/** What a caller of a parser of texts catches. */
const TEXT_ERRORS = [RangeError, SyntaxError];

// --- datagrams

const pair = disco.sealed[0]!;
const DISCO_BOX_KEY = boxKey(fromHex(pair.receiver_private), pair.sender_public as DiscoKey);

const HUB_DECODERS: Record<hub.MessageType, (bytes: Uint8Array) => unknown> = {
  hello: hub.decodeHello,
  challenge: hub.decodeChallenge,
  auth: hub.decodeAuth,
  welcome: hub.decodeWelcome,
  keepalive: hub.decodeKeepalive,
  alive: hub.decodeAlive,
  reset: hub.decodeReset,
};

/** Lengths of the message and its attributes, and its FINGERPRINT. */
function repairStun(bytes: Uint8Array): void {
  const HEADER = 20;
  if (bytes.length < HEADER) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint16(2, bytes.length - HEADER & ~3);
  let end = HEADER;
  for (let at = HEADER; at + 4 <= bytes.length; at = end) {
    const left = bytes.length - at - 4;
    if (view.getUint16(at + 2) > left) view.setUint16(at + 2, left);
    end = at + 4 + (view.getUint16(at + 2) + 3 & ~3);
    const isFingerprint = view.getUint16(at) === 0x8028 && view.getUint16(at + 2) === 4;
    if (isFingerprint) view.setUint32(at + 4, (crc32(bytes.subarray(0, at)) ^ 0x5354554e) >>> 0);
  }
}

/** Lengths of attributes of netlink from there on. */
function repairAttrs(bytes: Uint8Array, from: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = from; at + 4 <= bytes.length;) {
    const left = bytes.length - at;
    const length = view.getUint16(at, true);
    if (length < 4 || length > left) view.setUint16(at, left, true);
    at += view.getUint16(at, true) + 3 & ~3;
  }
}

function decodeHub(bytes: Uint8Array): unknown {
  const type = hub.messageType(bytes);
  return type && HUB_DECODERS[type](bytes);
}

const grant = await encodeGrant(
  { relay: KEY, nodes: nodePair(KEY, OTHER_KEY), endsSeconds: 2_000_000_000 },
  async () => new Uint8Array(64),
);

const request = await encodeRequest(
  { txId: TX_ID, nonce: new Uint8Array(36), grant, node: KEY, timestampMs: 1, port: 0 },
  async () => new Uint8Array(64),
);

const IP_UDP = fromHex(
  "45000024000040004011000 0cb007107 c0000201 1e611e6100100000 5453f09f92ac0000".replace(/ /g, ""),
);

/** Of every encapsulation. */
function readHeaders(bytes: Uint8Array): unknown {
  const arena = new Arena(new ArrayBuffer(65_536));
  arena.bytes.set(bytes);
  return (["gre", "bare", "jtunnel", "sealed"] as const).map((encapsulation) =>
    new HeaderReader(arena, encapsulation).find(0, bytes.length)
  );
}

const DATAGRAMS: Decoder[] = [
  {
    name: "disco message",
    samples: disco.plaintext.map(({ hex }) => fromHex(hex)),
    decode: decodeMessage,
    errors: [DiscoFormatError],
  },
  {
    name: "disco envelope",
    samples: disco.sealed.map(({ packet }) => fromHex(packet)),
    decode(bytes) {
      const envelope = readEnvelope(bytes);
      return envelope && open(envelope, DISCO_BOX_KEY);
    },
    errors: [],
  },
  {
    name: "STUN request",
    samples: [encodeBindingRequest(TX_ID), ...stunSamples()],
    decode: decodeBindingRequest,
    repair: repairStun,
    errors: [StunFormatError],
  },
  {
    name: "STUN answer",
    samples: [answerBinding(encodeBindingRequest(TX_ID), HOME)!, ...stunSamples()],
    decode: decodeBindingAnswer,
    repair: repairStun,
    errors: [StunFormatError],
  },
  {
    name: "relay message",
    samples: [
      encodeHello(TX_ID),
      request,
      encodeSuccess({ txId: TX_ID, port: 50_000, lifetimeSeconds: 60 }),
      encodeError({ txId: TX_ID, code: 401, nonce: new Uint8Array(36) }),
    ],
    decode: decodeRelayMessage,
    repair: repairStun,
    errors: [StunFormatError],
  },
  {
    name: "relay grant",
    samples: [grant],
    decode: decodeGrant,
    errors: [GrantFormatError],
  },
  {
    name: "relay channel",
    samples: [fromHex("0001 00"), fromHex("ffff")],
    decode: readChannel,
    errors: [],
  },
  {
    name: "hub message",
    samples: Object.values(hubVectors.protocol).map(({ bytes }) => fromHex(bytes)),
    decode: decodeHub,
    errors: [],
  },
  {
    name: "jtunnel packet",
    samples: [fromHex(hubVectors.jtunnel.bytes)],
    decode: (bytes) => ({ packet: decodeJtunnel(bytes), id: parseJtunnelId(latin1(bytes)) }),
    errors: [],
  },
  {
    name: "GRE packet",
    samples: [encodeGre(IP_UDP, 7)!, encodeGre(IP_UDP, undefined)!],
    decode: readHeaders,
    errors: [],
  },
  {
    name: "IP and UDP headers",
    samples: [IP_UDP],
    decode: (bytes) => ({
      raw: decodeIpUdp(bytes),
      udp: decodeUdp(bytes, parseIp("2001:db8::1")),
      bare: !isSignalling(IPIPOU_SIGNALLING, bytes),
    }),
    errors: [],
  },
  {
    name: "NAT-PMP answer",
    samples: [
      fromHex("00800000 00000e10 c6336407"),
      fromHex("00810000 00000e10 1e611e62 00001c20"),
    ],
    decode: decodeNatPmpAnswer,
    errors: [PortMapFormatError],
  },
  {
    name: "PCP answer",
    samples: [fromHex(
      "02810000 00001c20 00000e10 000000000000000000000000 000102030405060708090a0b 11000000 " +
        "1e611e62 00000000000000000000ffffc6336407",
    )],
    decode: decodePcpAnswer,
    errors: [PortMapFormatError],
  },
  {
    name: "SSDP answer",
    samples: [utf8(
      "HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.1:5000/root.xml\r\n" +
        "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nUSN: uuid:1::x\r\n\r\n",
    )],
    words: ["\r\n", "\n\n", "LOCATION:", ":", "\0", "HTTP/1.1 200", "WANIPConnection"],
    decode: decodeSearchAnswer,
    errors: [PortMapFormatError],
  },
];

function stunSamples(): Uint8Array[] {
  return JSON.stringify(stun).match(/"(?:[0-9a-f]{2} ?){20,}"/g)?.map((hex) =>
    fromHex(hex.slice(1, -1))
  ) ??
    [];
}

// --- the kernel's answers

const netlinkSample = (wanted: number[]) =>
  netlink.requests.filter(({ type }) => wanted.includes(type)).map(({ hex }) => fromHex(hex));
const payloads = (wanted: number[]) =>
  netlinkSample(wanted).map((bytes) => bytes.subarray(16)).filter(({ length }) => length > 16);

const NFTA_COUNTERS = encodeAttrs([
  attr.nested(1, [
    attr.string(1, "counter"),
    attr.nested(2, [attr.be64(1, 7n), attr.be64(2, 9n)]),
  ]),
]);

const STATISTICS = concatBytes(
  encodeStatsRequest(),
  encodeAttrs([attr.bytes(1, new Uint8Array(8 * 24).fill(1))]),
);

const KERNEL: Decoder[] = [
  {
    name: "netlink datagram",
    samples: netlinkSample([16, 20, 24, 26]),
    decode: decodeMessages,
    errors: [NetlinkFormatError],
  },
  ...Object.entries({
    "netlink link": { samples: payloads([16]), decode: decodeLink, head: 16 },
    "netlink address": { samples: payloads([20, 21]), decode: decodeAddress, head: 8 },
    "netlink route": { samples: payloads([24, 25]), decode: decodeRoute, head: 12 },
    "netlink statistics": { samples: [STATISTICS], decode: decodeStatsMessage, head: 12 },
    "nf_tables counters": { samples: [NFTA_COUNTERS], decode: decodeCounters, head: 0 },
  }).map(([name, { head, ...decoder }]) => ({
    name,
    ...decoder,
    repair: (bytes: Uint8Array) => repairAttrs(bytes, head),
    errors: [NetlinkFormatError],
  })),
];

// --- streams

/** All that it reads is there, in pieces of some bytes. */
function streamOf(bytes: Uint8Array): ByteStream {
  const PIECE = 64;
  let at = 0;
  return {
    read: async () => at < bytes.length ? bytes.subarray(at, at += PIECE) : undefined,
    write: async () => {},
    [Symbol.dispose]() {},
  };
}

const HTTP_WORDS = [
  ...["\r\n", "\r\n\r\n", "HTTP/1.1 ", " 200 ", "HTTP/1.1 100 Continue\r\n\r\n", "0\r\n\r\n"],
  ...["Content-Length: ", "Transfer-Encoding: chunked", "ffffffff\r\n", "99999999999999"],
];
const HTTP_ANSWERS = [
  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  "HTTP/1.0 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnot found",
  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
].map(utf8);

const DESCRIPTION = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">
<URLBase>http://192.0.2.1:5000</URLBase><device><deviceList><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/ctl/IPConn</controlURL></service></serviceList></device></deviceList></device></root>`;
const FAULT = `<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>718</errorCode>
<errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault></s:Body>
</s:Envelope>`;
const XML_WORDS = [
  ...["<", ">", "</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "&lt;", "&#x41;", "&amp", "<?xml"],
  ...["<!DOCTYPE a [<!ENTITY b 'c'>]>", "<a>".repeat(70), "<device>", "<service>", "errorCode"],
];

function webSocketFrames(mask: Uint8Array | undefined): Uint8Array[] {
  const frames = [OPCODE.text, OPCODE.binary, OPCODE.close, OPCODE.ping].map((opcode) =>
    encodeFrame(opcode, utf8("hello"), mask)
  );
  const begun = encodeFrame(OPCODE.binary, utf8("hello"), mask);
  begun[0] = OPCODE.binary;
  return [
    ...frames,
    concatBytes(begun, encodeFrame(OPCODE.continuation, new Uint8Array(300), mask)),
  ];
}

function webSocketMessages(bytes: Uint8Array, { isMasked }: { isMasked: boolean }): unknown {
  const PIECE = 64;
  const reader = new MessageReader({ isMasked, maxMessage: 1024 });
  const messages: WebSocketMessage[] = [];
  for (let at = 0; at < bytes.length; at += PIECE) {
    messages.push(...reader.push(bytes.subarray(at, at + PIECE)));
  }
  return { messages, isAmid: reader.isAmid };
}

const STREAMS: Decoder[] = [
  {
    name: "HTTP answer",
    samples: HTTP_ANSWERS,
    words: HTTP_WORDS,
    async decode(bytes) {
      const reader = new BufferedReader(streamOf(bytes));
      const head = await readHead(reader);
      return { head, body: await readBody(head, reader, 1024) };
    },
    errors: [DialError, ConnectionEndedError, RangeError],
  },
  {
    name: "HTTP request",
    samples: [
      "GET /v1/peers?since=1 HTTP/1.1\r\nHost: coordinator:8443\r\nConnection: keep-alive",
      "POST /v1/signal HTTP/1.0\r\nContent-Length: 5\r\nX-A: \xe9\r\nExpect: 100-continue",
    ].map((text) => Uint8Array.from(text, (char) => char.charCodeAt(0))),
    words: [
      ...["\r\n", " HTTP/1.1", "Host: ", "Content-Length: ", "Transfer-Encoding: chunked"],
      ...["Connection: close", "\0", ": ", ",", "HEAD /"],
    ],
    decode: (bytes) => readRequestHead(latin1(bytes)),
    errors: [HeadError],
  },
  {
    name: "WebSocket frames",
    samples: webSocketFrames(undefined),
    decode: (bytes) => webSocketMessages(bytes, { isMasked: false }),
    errors: [WebSocketError],
  },
  {
    name: "WebSocket frames, masked",
    samples: webSocketFrames(fromHex("37fa213d")),
    decode: (bytes) => webSocketMessages(bytes, { isMasked: true }),
    errors: [WebSocketError],
  },
  {
    name: "router's HTTP answer",
    samples: [...HTTP_ANSWERS, utf8(DESCRIPTION)],
    words: [...HTTP_WORDS, "</root>", "</envelope>"],
    decode(bytes) {
      const answer = new IncomingAnswer();
      for (let at = 0; at < bytes.length; at += 100) answer.push(bytes.subarray(at, at + 100));
      return { isWhole: answer.isWhole, wait: answer.patienceMs, answer: answer.finish() };
    },
    errors: [],
  },
  {
    name: "UPnP description",
    samples: [utf8(DESCRIPTION)],
    words: XML_WORDS,
    decode: (bytes) => decodeDescription(textOf(bytes)),
    errors: [PortMapFormatError],
  },
  {
    name: "UPnP action's answer",
    samples: [utf8(FAULT), utf8(encodeAction("x", "AddPortMappingResponse", [["NewPort", 1]]))],
    words: XML_WORDS,
    decode: (bytes) => decodeActionAnswer("AddPortMapping", { status: 200, text: textOf(bytes) }),
    errors: [PortMapFormatError],
  },
];

// --- JSON and other texts

const NODE = {
  node_pubkey: KEY_BASE64,
  disco_pubkey: [...fromHex(OTHER_KEY)],
  node_name: "nas",
  tunnel_ip: "100.64.0.2",
  endpoints: [{ addr: "203.0.113.7:7777", source: "stun" }, {
    addr: "[2001:db8::1]:7",
    source: "x",
  }],
  nat: { mapping: "hard", port_delta: 2 },
  updated_at: "2027-01-15T08:00:00.000Z",
  last_seen: "2027-01-15T08:00:00.000Z",
};
const JSON_WORDS = [
  ...[
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e999",
    "0.5",
    "9007199254740993",
    "[]",
    "{}",
    '""',
    '"',
  ],
  ...["[", "]", "{", "}", ",", ":", "[".repeat(200), '"\\u0000"', '"\\ud800"', '"__proto__":'],
  ...[
    '"addr"',
    '"endpoints"',
    '"node_pubkey"',
    '"0.0.0.0:0"',
    '"::ffff:1.2.3.4"',
    '"100.64.0.0/33"',
    '"__proto__"',
    '"x"',
    "[null]",
    '{"a":1}',
    "4294967296",
    `"${"x".repeat(300)}"`,
    '"2027-01-15T08:00:00.000Z"',
    '"\\n\\u001b[31m"',
  ],
];

const API: Record<string, [sample: unknown, parse: (value: unknown) => unknown]> = {
  registration: [{ ...NODE, requested_tunnel_ip: "100.64.0.9" }, api.parseRegisterRequest],
  "registration's answer": [
    { tunnel_ip: "100.64.0.1/24", peers_etag: "1", stun: [":3478"], lease_seconds: 60 },
    api.parseRegisterResponse,
  ],
  endpoints: [NODE, api.parseReach],
  "list of peers": [
    { etag: "1", peers: [NODE], changes: { since: "0", gone: [] } },
    api.parsePeers,
  ],
  "stored node": [
    { ...NODE, updated_ms: 1, seen_ms: 2, lease_ends_ms: 3, listed: true, tags: ["a"] },
    api.parseRecord,
  ],
  signal: [{ to: NODE.disco_pubkey, sealed: "AAEC" }, api.parseSignal],
  signals: [{ envelopes: [{ from: NODE.disco_pubkey, sealed: "AAEC" }] }, api.parseEnvelopes],
  "relay's registration": [
    { udp: "203.0.113.1:3479", http: "a:8443", tls: true },
    api.parseRelayRegistration,
  ],
  relays: [{ relays: [{ relay_id: KEY_BASE64, udp: "a:3479", ws: "" }] }, api.parseRelays],
  "relay latencies": [{ latencies: { [KEY_BASE64]: 3 } }, api.parseRelaysRequest],
  "relay offer": [
    {
      relay_id: KEY_BASE64,
      udp: "a:1",
      ws: "",
      grant: toBase64(grant),
      expires_at: NODE.last_seen,
    },
    api.parseRelayOffer,
  ],
  "stored token": [
    { id: "a", hash: "b", created_ms: 1, tags: ["t"], uses: 0, reusable: true },
    api.parseToken,
  ],
  "STUN servers": [{ stun: ["a:1"] }, api.parseStun],
};

const POLICY = `{
  // who is what
  "groups": { "ops": ["name:nas", "tag:admin"] },
  "rules": [{ "from": ["group:ops"], "to": "*", "allow": ["tcp:22", "tcp:80-90", "icmp"] }],
  "tests": [{ "from": "name:nas", "to": "tag:web", "may": "tcp:22", "mayNot": "udp:53" }],
}`;

/** As `Headers` are, which cost more than all that is read from them. */
class FewHeaders {
  readonly #values = new Map<string, string>();

  addLine(line: string): void {
    const end = line.indexOf(" ");
    const name = (end < 0 ? line : line.slice(0, end)).toLowerCase();
    if (!/^[\w-]+$/.test(name)) return; // does not get through HTTP
    const value = end < 0 ? "" : line.slice(end).replace(/[\0\r]/g, "").trim();
    const before = this.#values.get(name);
    this.#values.set(name, before === undefined ? value : `${before}, ${value}`);
  }

  get(name: string): string | null {
    return this.#values.get(name) ?? null;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }
}

const TEXTS: Decoder[] = [
  {
    name: "policy file",
    samples: [utf8(POLICY), utf8(JSON.stringify(jsonc.parse(POLICY)))],
    words: [
      ...JSON_WORDS,
      "//",
      "/*",
      "*/",
      '"group:ops"',
      '"*"',
      '"tcp:0-65535"',
      '"key:"',
      '"may":',
    ],
    decode: (bytes) => readPolicy(textOf(bytes)),
    errors: [PolicyError],
  },
  {
    name: "signed statement of a node",
    samples: [utf8(JSON.stringify({ sequence: 1, ...NODE, disco_pubkey: KEY_BASE64 }))],
    words: JSON_WORDS,
    decode: (bytes) => api.parseStatement(textOf(bytes)),
    errors: [api.ApiError],
  },
  ...Object.entries(API).map(([name, [sample, parse]]): Decoder => ({
    name: `JSON: ${name}`,
    samples: [utf8(JSON.stringify(sample))],
    words: JSON_WORDS,
    decode: (bytes) => parse(jsonOf(bytes)),
    errors: [api.ApiError],
  })),
  {
    name: "signed request's headers",
    samples: [utf8([
      `x-gretun-node ${KEY_BASE64}`,
      "x-gretun-timestamp 1800000000",
      `authorization Gretun ${toBase64(new Uint8Array(64))}`,
    ].join("\n"))],
    words: ["\n", "Gretun ", "x-gretun-nonce ", "x-gretun-instance ", "1e9", "="],
    decode(bytes) {
      const headers = new FewHeaders();
      for (const line of latin1(bytes).split("\n")) headers.addLine(line);
      api.readInstance(headers as unknown as Headers);
      return readClaim(headers as unknown as Headers, 1_800_000_000_000);
    },
    errors: [AuthError],
  },
  {
    name: "token",
    samples: [utf8(api.tokenText(KEY, new Uint8Array(api.TOKEN_SECRET_LENGTH)))],
    words: ["gretun-", "=", "-", "_", "+", "/"],
    decode: (bytes) => api.parseTokenText(textOf(bytes)),
    errors: [RangeError],
  },
  {
    name: "configuration file",
    samples: [utf8("# a\ncoordinator http://203.0.113.1:8443\nverbose\nnode-name = nas\n")],
    words: ["\n", "\r\n", "=", "#", "--", " "],
    decode: (bytes) => parseConfig(textOf(bytes)),
    errors: [],
  },
  {
    name: "hub's client file",
    samples: [utf8(
      `public-key ${KEY_BASE64}\ntoken abc\naddress 10.9.0.2/30\nroutes 10.0.0.0/8, 2001:db8::/32\n` +
        "remote 203.0.113.7:5000\nlifetime 60s\nsources 10.1.0.0/16\nhub-address 10.9.0.1\n",
    )],
    words: ["\n", "public-key ", "routes ", "remote ", "/129", "::", "lifetime ", "__proto__ 1"],
    decode: (bytes) => parseClientFile("nas", textOf(bytes)),
    errors: [],
  },
  {
    name: "addresses",
    samples: [
      "203.0.113.7:7777",
      "[2001:db8::1]:7777",
      "10.0.0.0/8",
      "2001:db8::/32",
      "::ffff:1.2.3.4",
    ]
      .map(utf8),
    words: [":", "::", "/", "[", "]", "ffff", "256", "%eth0", "1.2.3.4"],
    decode(bytes) {
      const text = textOf(bytes);
      if (text.includes("/")) return parseCidr(text);
      if (/^\[|^[^:]*:[^:]*$/.test(text)) return formatEndpoint(parseEndpoint(text));
      return parseIp(text);
    },
    errors: TEXT_ERRORS,
  },
];

export const DECODERS: readonly Decoder[] = [...DATAGRAMS, ...KERNEL, ...STREAMS, ...TEXTS];
