/** The messages of port mapping, as bytes and as text; by hand from the documents. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { cpuUsage } from "node:process";
import { parseIp } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { hasNatPmpRestarted, hasPcpRestarted } from "../../../lib/portmap/epoch.ts";
import { PortMapFormatError, PortMapRefusedError } from "../../../lib/portmap/errors.ts";
import {
  decodeNatPmpAnswer,
  encodeAddressRequest,
  encodeMapRequest,
  type NatPmpAnswer,
  natPmpResultText,
} from "../../../lib/portmap/natpmp.ts";
import {
  decodePcpAnswer,
  encodeAnnounce,
  encodePcpMap,
  type PcpAnswer,
  pcpResultText,
} from "../../../lib/portmap/pcp.ts";
import {
  decodeSearchAnswer,
  encodeSearch,
  IGD_TARGETS,
  SSDP_MULTICAST,
} from "../../../lib/portmap/ssdp.ts";
import { gatewayUrl } from "../../../lib/portmap/upnp_discovery.ts";
import {
  decodeActionAnswer,
  decodeDescription,
  encodeAction,
} from "../../../lib/portmap/upnp_xml.ts";
import { findAll, readXml, textOf, type XmlElement } from "../../../lib/portmap/xml.ts";

const NONCE = fromHex("00 01 02 03 04 05 06 07 08 09 0a 0b");
const compact = (hex: string) => hex.replace(/\s+/g, "");
const bytesOf = (text: string) => new TextEncoder().encode(text);

// --- NAT-PMP (RFC 6886)

Deno.test("NAT-PMP requests: sections 3.2 and 3.3", () => {
  strictEqual(toHex(encodeAddressRequest()), "0000");
  const map = { internalPort: 7777, externalPort: 7778, lifetimeSeconds: 7200 };
  strictEqual(toHex(encodeMapRequest(map)), compact("00 01 0000 1e61 1e62 00001c20"));
  const unmap = { internalPort: 7777, externalPort: 0, lifetimeSeconds: 0 };
  strictEqual(toHex(encodeMapRequest(unmap)), compact("00 01 0000 1e61 0000 00000000"));
});

const NATPMP_ANSWERS: [string, string, NatPmpAnswer][] = [
  ["address", "00 80 0000 00000e10 c6336407", {
    kind: "address",
    epochSeconds: 3600,
    external: parseIp("198.51.100.7"),
  }],
  ["mapping", "00 81 0000 00000e10 1e61 1e62 00001c20", {
    kind: "map",
    epochSeconds: 3600,
    internalPort: 7777,
    externalPort: 7778,
    lifetimeSeconds: 7200,
  }],
  ["mapping with more behind it", "00 81 0000 00000e10 1e61 1e62 00001c20 ffff", {
    kind: "map",
    epochSeconds: 3600,
    internalPort: 7777,
    externalPort: 7778,
    lifetimeSeconds: 7200,
  }],
  ["refused mapping, header alone", "00 81 0002 00000e10", {
    kind: "error",
    to: "map",
    epochSeconds: 3600,
    result: 2,
  }],
  ["refused address in full length", "00 80 0003 00000000 00000000", {
    kind: "error",
    to: "address",
    epochSeconds: 0,
    result: 3,
  }],
];

for (const [name, hex, expected] of NATPMP_ANSWERS) {
  Deno.test(`decodeNatPmpAnswer() reads: ${name}`, () => {
    deepStrictEqual(decodeNatPmpAnswer(fromHex(hex)), expected);
  });
}

const NATPMP_REFUSED: [string, string][] = [
  ["nothing", ""],
  ["a version of PCP", "02 80 0000 00000e10 c6336407"],
  ["a request", "00 01 0000 1e61 1e62 00001c20"],
  ["an answer about TCP", "00 82 0000 00000e10 1e61 1e62 00001c20"],
  ["an unknown opcode", "00 ff 0000 00000e10 1e61 1e62 00001c20"],
  ["a short error", "00 81 0002 00000e"],
];

for (const [name, hex] of NATPMP_REFUSED) {
  Deno.test(`decodeNatPmpAnswer() refuses: ${name}`, () => {
    throws(() => decodeNatPmpAnswer(fromHex(hex)), PortMapFormatError);
  });
}

// --- PCP (RFC 6887)

const LOCAL_HEX = "00000000000000000000ffff c0a80114";
const EXTERNAL_HEX = "00000000000000000000ffff c6336407";
const NONCE_HEX = "000102030405060708090a0b";

Deno.test("PCP requests: sections 7.1, 11.1 and 14.1", () => {
  const client = parseIp("192.168.1.20");
  strictEqual(toHex(encodeAnnounce(client)), compact(`02 00 0000 00000000 ${LOCAL_HEX}`));
  const map = {
    nonce: NONCE,
    internalPort: 7777,
    external: { ip: parseIp("198.51.100.7"), port: 7778 },
    lifetimeSeconds: 7200,
  };
  const tail = `${NONCE_HEX} 11 000000 1e61 1e62 ${EXTERNAL_HEX}`;
  strictEqual(
    toHex(encodePcpMap(client, map)),
    compact(`02 01 0000 00001c20 ${LOCAL_HEX} ${tail}`),
  );
  const any = { ...map, external: { ip: parseIp("0.0.0.0"), port: 0 } };
  ok(toHex(encodePcpMap(client, any)).endsWith("00000000000000000000ffff00000000"));
  const six = { ...map, external: { ip: parseIp("::"), port: 0 } };
  ok(toHex(encodePcpMap(parseIp("2001:db8::1"), six)).endsWith("0".repeat(32)));
  throws(() => encodePcpMap(client, { ...map, nonce: NONCE.subarray(1) }), RangeError);
});

const MAP_ANSWER = `02 81 00 00 00001c20 00000e10 ${
  "00".repeat(12)
} ${NONCE_HEX} 11 000000 1e61 1e62 ${EXTERNAL_HEX}`;
const MAPPED = {
  nonce: NONCE,
  internalPort: 7777,
  external: { ip: parseIp("198.51.100.7"), port: 7778 },
  lifetimeSeconds: 7200,
};

const PCP_ANSWERS: [string, string, PcpAnswer][] = [
  ["announcement", `02 80 00 00 00000000 00000e10 ${"00".repeat(12)}`, {
    kind: "announce",
    result: 0,
    epochSeconds: 3600,
  }],
  ["mapping", MAP_ANSWER, { kind: "map", result: 0, epochSeconds: 3600, map: MAPPED }],
  ["mapping with an option", `${MAP_ANSWER} 80 00 0004 00000000`, {
    kind: "map",
    result: 0,
    epochSeconds: 3600,
    map: MAPPED,
  }],
  ["refused mapping", MAP_ANSWER.replace("81 00 00", "81 00 02"), {
    kind: "map",
    result: 2,
    epochSeconds: 3600,
    map: MAPPED,
  }],
  ["refused mapping, header alone", `02 81 00 08 0000001e 00000e10 ${"00".repeat(12)}`, {
    kind: "map",
    result: 8,
    epochSeconds: 3600,
    map: undefined,
  }],
  ["a gateway with NAT-PMP alone", "00 81 0001 00000e10", { kind: "other-version" }],
  ["a gateway with an older PCP", `01 81 00 01 00000000 00000e10 ${"00".repeat(12)}`, {
    kind: "other-version",
  }],
];

for (const [name, hex, expected] of PCP_ANSWERS) {
  Deno.test(`decodePcpAnswer() reads: ${name}`, () => {
    const { map, ...rest } = { map: undefined, ...decodePcpAnswer(fromHex(hex)) };
    const { map: expectedMap, ...expectedRest } = { map: undefined, ...expected };
    deepStrictEqual(rest, expectedRest);
    deepStrictEqual(
      map && { ...map, nonce: toHex(map.nonce) },
      expectedMap && {
        ...expectedMap,
        nonce: toHex(expectedMap.nonce),
      },
    );
  });
}

const PCP_REFUSED: [string, string][] = [
  ["nothing", ""],
  ["a request", `02 01 0000 00001c20 ${LOCAL_HEX}`],
  ["another version without an error", `03 81 00 00 00000000 00000e10 ${"00".repeat(12)}`],
  ["a request of another version", "00 01 0001 1e61 1e62 00001c20"],
  ["an unknown opcode", `02 82 00 00 00000000 00000e10 ${"00".repeat(12)}`],
  ["TCP", MAP_ANSWER.replace(" 11 ", " 06 ")],
  ["no multiple of 4", `${MAP_ANSWER} 00`],
  ["more than 1100 bytes", `${MAP_ANSWER} ${"00".repeat(1044)}`],
];

for (const [name, hex] of PCP_REFUSED) {
  Deno.test(`decodePcpAnswer() refuses: ${name}`, () => {
    throws(() => decodePcpAnswer(fromHex(hex)), PortMapFormatError);
  });
}

// --- mutations

/** The same numbers each time. */
function* pseudoRandom(seed: number): Generator<number> {
  while (true) {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    yield seed >>> 8;
  }
}

const DECODERS: [string, (bytes: Uint8Array) => unknown, Uint8Array[], number][] = [
  ["decodeNatPmpAnswer", decodeNatPmpAnswer, NATPMP_ANSWERS.map(([, hex]) => fromHex(hex)), 8],
  ["decodePcpAnswer", decodePcpAnswer, PCP_ANSWERS.map(([, hex]) => fromHex(hex)), 8],
];

for (const [name, decode, vectors, shortest] of DECODERS) {
  Deno.test(`${name}() refuses what is cut off, and throws nothing but its own error`, () => {
    for (const vector of vectors) {
      for (let length = 0; length < shortest; length++) {
        throws(() => decode(vector.subarray(0, length)), PortMapFormatError);
      }
      for (let length = shortest; length < vector.length; length++) {
        onlyFormatErrors(() => decode(vector.subarray(0, length)));
      }
    }
  });

  Deno.test(`${name}() throws nothing but its own error for changed bytes`, () => {
    const numbers = pseudoRandom(1);
    for (const vector of vectors) {
      for (let round = 0; round < 2000; round++) {
        const changed = vector.slice();
        for (let i = 0; i <= round % 3; i++) {
          changed[numbers.next().value! % changed.length] = numbers.next().value!;
        }
        onlyFormatErrors(() => decode(changed));
      }
    }
  });
}

function onlyFormatErrors(body: () => unknown): void {
  try {
    body();
  } catch (error) {
    ok(error instanceof PortMapFormatError, String(error));
  }
}

Deno.test("every result has a text", () => {
  strictEqual(natPmpResultText(5), "unsupported opcode");
  strictEqual(natPmpResultText(77), "result 77");
  for (let result = 1; result <= 13; result++) ok(!pcpResultText(result).startsWith("result"));
  strictEqual(pcpResultText(77), "result 77");
});

// --- epochs

const PCP_EPOCHS: [string, [number, number], [number, number], boolean][] = [
  ["the same pace", [100, 0], [160, 60], false],
  ["one second back", [100, 0], [99, 0], false],
  ["two seconds back", [100, 0], [98, 0], true],
  ["a clock that is 6 % slow", [100, 0], [1040, 1000], false],
  ["much slower", [100, 0], [900, 1000], true],
  ["much faster", [100, 0], [1300, 1000], true],
  ["started again", [100_000, 0], [5, 60], true],
  ["started again soon after the first answer", [2, 0], [1, 4], true],
];

for (const [name, [epoch, at], [laterEpoch, laterAt], expected] of PCP_EPOCHS) {
  Deno.test(`hasPcpRestarted(): ${name}`, () => {
    const before = { epochSeconds: epoch, atMs: at * 1000 };
    const now = { epochSeconds: laterEpoch, atMs: laterAt * 1000 };
    strictEqual(hasPcpRestarted(before, now), expected);
  });
}

const NATPMP_EPOCHS: [string, [number, number], [number, number], boolean][] = [
  ["the same pace", [100, 0], [160, 60], false],
  ["7/8 of the pace", [100, 0], [975, 1000], false],
  ["less than that by 3 s", [100, 0], [972, 1000], true],
  ["faster is allowed", [100, 0], [9000, 1000], false],
  ["started again", [100_000, 0], [5, 60], true],
];

for (const [name, [epoch, at], [laterEpoch, laterAt], expected] of NATPMP_EPOCHS) {
  Deno.test(`hasNatPmpRestarted(): ${name}`, () => {
    const before = { epochSeconds: epoch, atMs: at * 1000 };
    const now = { epochSeconds: laterEpoch, atMs: laterAt * 1000 };
    strictEqual(hasNatPmpRestarted(before, now), expected);
  });
}

// --- SSDP

Deno.test("encodeSearch() asks as the architecture has it", () => {
  strictEqual(
    new TextDecoder().decode(encodeSearch(IGD_TARGETS[0]!, SSDP_MULTICAST)),
    "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n" +
      'MAN: "ssdp:discover"\r\nMX: 1\r\n' +
      "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n",
  );
});

const ST = "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1";
const LOCATION = "LOCATION: http://192.168.1.1:5000/d.xml";
const ANSWER = `HTTP/1.1 200 OK\r\n${ST}\r\n${LOCATION}\r\n\r\n`;

const SEARCH_ANSWERS: [string, string, string | undefined][] = [
  ["as it should be", ANSWER, "http://192.168.1.1:5000/d.xml"],
  ["names in lower case", ANSWER.replace("LOCATION", "location"), "http://192.168.1.1:5000/d.xml"],
  ["line feeds alone", ANSWER.replaceAll("\r", ""), "http://192.168.1.1:5000/d.xml"],
  ["no space after the colon", ANSWER.replaceAll(": ", ":"), "http://192.168.1.1:5000/d.xml"],
  ["HTTP/1.0, no reason", ANSWER.replace("1.1 200 OK", "1.0 200"), "http://192.168.1.1:5000/d.xml"],
  ["two locations", ANSWER.replace(ST, `${ST}\r\nLocation: http://x/`), "http://x/"],
  [
    "a line that is no header",
    ANSWER.replace(ST, `${ST}\r\nhello`),
    "http://192.168.1.1:5000/d.xml",
  ],
  ["a NUL at the end", `${ANSWER}\0`, "http://192.168.1.1:5000/d.xml"],
  ["no end", ANSWER.trimEnd(), "http://192.168.1.1:5000/d.xml"],
  ["a body with a header", ANSWER.replace(`${LOCATION}\r\n`, "") + LOCATION, undefined],
  ["nothing", "", undefined],
  ["a search", "M-SEARCH * HTTP/1.1\r\n\r\n", undefined],
  ["a notification", ANSWER.replace("HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1"), undefined],
  ["an error", ANSWER.replace("200 OK", "404 Not Found"), undefined],
  ["an empty location", ANSWER.replace(/LOCATION: \S+/, "LOCATION:"), undefined],
  ["too long", ANSWER.replace("\r\n\r\n", `\r\nX: ${"x".repeat(5000)}\r\n\r\n`), undefined],
];

for (const [name, text, location] of SEARCH_ANSWERS) {
  Deno.test(`decodeSearchAnswer(): ${name}`, () => {
    if (location === undefined) throws(() => decodeSearchAnswer(bytesOf(text)), PortMapFormatError);
    else deepStrictEqual(decodeSearchAnswer(bytesOf(text)), { location, isGateway: true });
  });
}

Deno.test("decodeSearchAnswer() tells a gateway from other devices", () => {
  const cases: [string, boolean][] = [
    [ANSWER.replace("InternetGatewayDevice", "MediaServer"), false],
    [ANSWER.replace(`${ST}\r\n`, ""), false],
    [ANSWER.replace(ST, "ST: upnp:rootdevice"), false],
    [ANSWER.replace(ST, "ST: urn:schemas-upnp-org:service:WANIPConnection:1"), true],
    [ANSWER.replace(ST, "st:upnp:rootdevice\r\nUSN: uuid:1::" + ST.slice(4)), true],
  ];
  for (const [text, isGateway] of cases) {
    strictEqual(decodeSearchAnswer(bytesOf(text)).isGateway, isGateway, text);
  }
});

// --- XML

/** As it was understood, in one line. */
const written = ({ name, children, text }: XmlElement): string =>
  `${name}(${[...(text ? [JSON.stringify(text)] : []), ...children.map(written)].join(" ")})`;

const DOCUMENTS: [string, string, string][] = [
  ["an element", "<a/>", "a()"],
  ["text", "<a> b\n</a>", 'a("b")'],
  ["declaration, comment", '<?xml version="1.0"?>\n<!-- <b> --><a></a>\n', "a()"],
  ["attributes and prefixes", "<s:A x='1' s:y=\"2>3\">b</s:A >", 'a("b")'],
  ["attributes without quotes", "<a b=c d/>", "a()"],
  ["entities", "<a>&lt;&amp;&gt; &#65;&#x42;</a>", 'a("<&> AB")'],
  ["escaped once", "<a>&amp;lt;</a>", 'a("&lt;")'],
  ["a bare ampersand", "<a>b & c&d</a>", 'a("b & c&d")'],
  ["an unknown entity", "<a>&nbsp;&x;</a>", 'a("&nbsp;&x;")'],
  ["character data", "<a><![CDATA[<b>&amp;]]></a>", 'a("<b>&amp;")'],
  ["elements in it", "<a><b>1</b><c/></a>", 'a(b("1") c())'],
  ["an end that is missing", "<a><b>1<c>2</a>", 'a(b("1" c("2")))'],
  ["an end too many", "<a><b>1</b></c></a></a>", 'a(b("1"))'],
  ["ends that do not match", "<a><b>1</B><c>2</c></a>", 'a(b("1" c("2")))'],
  ["NUL and junk", "\0<a>1\0</a>\0", 'a("1")'],
  ["an entity of its own", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', '"]>" a("&b;")'],
];

for (const [name, document, expected] of DOCUMENTS) {
  Deno.test(`readXml() reads: ${name}`, () => {
    strictEqual(written(readXml(document)), `(${expected})`);
  });
}

Deno.test("findAll() and textOf(): anywhere, in any case, in order", () => {
  const document = readXml("<a><B>1<b>2</b></B><c><b>3</b></c></a>");
  deepStrictEqual(findAll(document, "b").map(({ text }) => text), ["1", "2", "3"]);
  strictEqual(textOf(document, "B"), "1");
  strictEqual(textOf(document, "d"), undefined);
});

Deno.test("readXml() takes a second of a core at most for 128 KiB of anything, and bounds the depth", () => {
  for (
    const part of ["<a ", "<a>", "<!--", "<?", "&", "<a b='", "<![CDATA[", " ", "x=", "<a x=''"]
  ) {
    const before = cpuUsage();
    onlyFormatErrors(() => readXml(part.repeat(128 * 1024 / part.length)));
    const { user, system } = cpuUsage(before);
    ok(user + system < 1_000_000, `${JSON.stringify(part)}: ${user + system} us`);
  }
  throws(() => readXml("<a>".repeat(100)), PortMapFormatError);
});

const service = (kind: string, url: string) =>
  `<service><serviceType>urn:schemas-upnp-org:service:${kind}</serviceType>` +
  `<controlURL>${url}</controlURL></service>`;
const device = (services: string, inner = "") =>
  `<device><serviceList>${services}</serviceList><deviceList>${inner}</deviceList></device>`;

Deno.test("decodeDescription() finds the services that make mappings, best first", () => {
  const ppp = service("WANPPPConnection:1", "/ppp");
  const v1 = service("WANIPConnection:1", "/one");
  const v2 = service("WANIPConnection:2", "/two");
  const other = service("Layer3Forwarding:1", "/l3");
  const text = `<root>${device(other, device("", device(ppp + v1) + device(v2)))}</root>`;
  const found = decodeDescription(text);
  strictEqual(found.baseUrl, undefined);
  deepStrictEqual(found.services.map(({ controlUrl }) => controlUrl), ["/two", "/one", "/ppp"]);
  const based = `<root><URLBase>http://192.168.1.1:80/</URLBase>${device(other)}</root>`;
  deepStrictEqual(decodeDescription(based), { baseUrl: "http://192.168.1.1:80/", services: [] });
  throws(() => decodeDescription("<html></html>"), PortMapFormatError);
});

Deno.test("encodeAction() is what SOAP wants", () => {
  const text = encodeAction("urn:x:service:WANIPConnection:1", "DeletePortMapping", [
    ["NewRemoteHost", ""],
    ["NewExternalPort", 7777],
  ]);
  strictEqual(
    text,
    '<?xml version="1.0"?>\r\n' +
      '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ' +
      's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>' +
      '<u:DeletePortMapping xmlns:u="urn:x:service:WANIPConnection:1">' +
      "<NewRemoteHost></NewRemoteHost><NewExternalPort>7777</NewExternalPort>" +
      "</u:DeletePortMapping></s:Body></s:Envelope>\r\n",
  );
  strictEqual(findAll(readXml(text), "Body").length, 1);
});

const envelope = (body: string) => `<s:Envelope><s:Body>${body}</s:Body></s:Envelope>`;
const fault = (code: string) =>
  envelope(
    "<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError>" +
      `<errorCode>${code}</errorCode><errorDescription>Why</errorDescription>` +
      "</UPnPError></detail></s:Fault>",
  );

Deno.test("decodeActionAnswer() reads answers and faults, and refuses the rest", () => {
  const decode = (text: string, status = 200) => decodeActionAnswer("Ask", { status, text });
  const response = envelope("<u:AskResponse><NewA>1</NewA><NewB/></u:AskResponse>");
  const values = new Map([["newa", "1"], ["newb", ""]]);
  deepStrictEqual(decode(response), { kind: "response", values });
  const other = decode(response.replaceAll("AskResponse", "OtherResponse"));
  strictEqual(other.kind === "response" && other.values.get("newa"), "1");
  deepStrictEqual(decode(""), { kind: "response", values: new Map() });
  for (const status of [200, 500]) {
    deepStrictEqual(decode(fault("725"), status), { kind: "fault", code: 725, description: "Why" });
  }
  const faults = [fault(""), fault("x"), fault("-1"), envelope("<s:Fault/>")];
  for (const text of ["<html><body>log in</body></html>", "not XML", ...faults]) {
    throws(() => decode(text), PortMapFormatError, text);
  }
  throws(() => decode("", 500), PortMapFormatError);
});

const GATEWAY = parseIp("192.168.1.1");
const BASE = new URL("http://192.168.1.1:5000/desc.xml");

const URLS: [string, string | undefined][] = [
  ["/ctl/IPConn", "http://192.168.1.1:5000/ctl/IPConn"],
  ["ctl", "http://192.168.1.1:5000/ctl"],
  ["http://192.168.1.1:49152/ctl", "http://192.168.1.1:49152/ctl"],
  ["", "http://192.168.1.1:5000/desc.xml"],
  // Nobody is led elsewhere.
  ["//192.168.1.2/ctl", "http://192.168.1.1/ctl"],
  ["http://192.168.1.2:5000/ctl", "http://192.168.1.1:5000/ctl"],
  ["http://192.168.1.1.example.com/ctl", "http://192.168.1.1/ctl"],
  ["http://router.lan/ctl", "http://192.168.1.1/ctl"],
  ["http://127.0.0.1/ctl", "http://192.168.1.1/ctl"],
  ["http://[::1]/ctl", "http://192.168.1.1/ctl"],
  ["http://admin:secret@192.168.1.1/ctl", undefined],
  ["https://192.168.1.1/ctl", undefined],
  ["file:///etc/passwd", undefined],
  ["http://", undefined],
];

for (const [text, expected] of URLS) {
  Deno.test(`gatewayUrl() of ${JSON.stringify(text)}`, () => {
    if (expected) strictEqual(gatewayUrl(text, BASE, GATEWAY).href, expected);
    else throws(() => gatewayUrl(text, BASE, GATEWAY), PortMapRefusedError);
  });
}
