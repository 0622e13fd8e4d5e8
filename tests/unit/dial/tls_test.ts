/** Certificates of all kinds, made by openssl, served by the runtime. */
import { match, rejects, strictEqual } from "node:assert/strict";
import { GretunError } from "../../../lib/errors.ts";
import { HttpClient, openWebSocket, systemDialer } from "../../../lib/dial/mod.ts";
import { openSsl } from "../../../lib/dial/openssl.ts";
import { ownCertificates, systemCertificates, type TrustFiles } from "../../../lib/dial/trust.ts";
import { systemRandom } from "../../../lib/edges.ts";

const dir = await Deno.makeTempDir({ prefix: "gretun-dial-tls-" });
globalThis.addEventListener("unload", () => Deno.removeSync(dir, { recursive: true }));
const { signal } = new AbortController();

// Opened outside of any test: it stays open, which a test would be blamed for.
const hasOpenSsl = openSsl() !== undefined && await hasCommand();

async function hasCommand(): Promise<boolean> {
  try {
    return (await new Deno.Command("openssl", { args: ["version"] }).output()).success;
  } catch {
    return false;
  }
}

async function openssl(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("openssl", { args, cwd: dir }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** `openssl req -x509`, whose certificate is an authority's unless told. */
async function selfSigned(name: string, subject: string, ...more: string[]): Promise<string> {
  const out = ["-keyout", `${name}.key`, "-out", `${name}.pem`];
  await openssl("req", "-x509", ...KEY, "-subj", subject, ...out, ...more);
  return name;
}

/** Signed by "ca" for "/CN=x"; the days may be negative. */
async function signed(name: string, extension: string, days: string[]): Promise<string> {
  await Deno.writeTextFile(`${dir}/${name}.ext`, `${extension}\n`);
  const out = ["-keyout", `${name}.key`, "-out", `${name}.csr`];
  await openssl("req", ...KEY, "-subj", "/CN=x", ...out);
  const by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", `${name}.ext`];
  await openssl("x509", "-req", "-in", `${name}.csr`, "-out", `${name}.pem`, ...by, ...days);
  return name;
}

function serve(name: string) {
  return Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    cert: Deno.readTextFileSync(`${dir}/${name}.pem`),
    key: Deno.readTextFileSync(`${dir}/${name}.key`),
    onListen: () => {},
  }, (request) => {
    if (request.headers.get("upgrade") !== "websocket") return new Response("x".repeat(100_000));
    const { socket, response } = Deno.upgradeWebSocket(request);
    socket.onopen = () => socket.send(new Uint8Array(50_000));
    return response;
  });
}

/** Asks twice, on a new connection and on the kept one. */
async function lengthOf(name: string, host: string, ca?: string): Promise<number> {
  await using server = serve(name);
  using client = new HttpClient(systemDialer(ca ? { caFile: `${dir}/${ca}.pem` } : {}));
  let length = 0;
  for (let i = 0; i < 2; i++) {
    const url = `https://${host}:${server.addr.port}/`;
    length += (await (await client.request(url, { method: "GET", signal })).text()).length;
  }
  return length;
}

const WORKS: [what: string, host: string, make: () => Promise<string>, ca?: string][] = [
  ["with the name of the host", "localhost", () => selfSigned("a", "/CN=localhost")],
  ["with the address of the host", "127.0.0.1", () => selfSigned("b", "/CN=127.0.0.1")],
  ["that names nobody", "127.0.0.1", () => selfSigned("c", "/O=Internet Widgits Pty Ltd")],
  [
    "with alternative names",
    "127.0.0.1",
    () => selfSigned("d", "/CN=x.example", "-addext", "subjectAltName=IP:127.0.0.1"),
  ],
  [
    "that is no authority's",
    "localhost",
    () =>
      selfSigned(
        "e",
        "/CN=x",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=CA:FALSE",
      ),
  ],
  [
    "that is no authority's, without alternative names",
    "localhost",
    () => selfSigned("f", "/CN=localhost", "-addext", "basicConstraints=CA:FALSE"),
  ],
  ["of an issuer that is given", "127.0.0.1", async () => {
    await selfSigned("ca", "/CN=My CA");
    return await signed("g", "subjectAltName=IP:127.0.0.1", ["-days", "2"]);
  }, "ca"],
];

for (const [what, host, make, ca] of WORKS) {
  Deno.test({
    name: `--ca: a certificate ${what} is trusted`,
    ignore: !hasOpenSsl,
    fn: async () => {
      const name = await make();
      strictEqual(await lengthOf(name, host, ca ?? name), 200_000);
    },
  });
}

const FAULTS: [what: RegExp, host: string, make: () => Promise<string>, ca?: string][] = [
  [/is self-signed.* --ca/, "localhost", () => selfSigned("h", "/CN=localhost")],
  [
    /is self-signed/,
    "localhost",
    () =>
      selfSigned(
        "i",
        "/CN=x",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=CA:FALSE",
      ),
  ],
  [/unknown issuer/, "127.0.0.1", () => signed("j", "subjectAltName=IP:127.0.0.1", ["-days", "2"])],
  [
    /has expired/,
    "127.0.0.1",
    () => signed("k", "subjectAltName=IP:127.0.0.1", ["-days", "-1"]),
    "ca",
  ],
  [
    /is for another name than 127.0.0.1/,
    "127.0.0.1",
    () => signed("l", "subjectAltName=DNS:x.example", ["-days", "2"]),
    "ca",
  ],
  [/is for another name than localhost/, "localhost", () => selfSigned("m", "/CN=x.example"), "m"],
  [
    /is for another name than localhost/,
    "localhost",
    () => selfSigned("n", "/CN=localhost", "-addext", "subjectAltName=DNS:x.example"),
    "n",
  ],
  [/self-signed|unknown issuer/, "localhost", () => selfSigned("o", "/CN=localhost"), "ca"],
  // Names nobody, but is trusted only for its issuer.
  [/is for another name/, "localhost", async () => {
    return await signed("s", "basicConstraints=CA:FALSE", ["-days", "2"]);
  }, "ca"],
];

for (const [what, host, make, ca] of FAULTS) {
  Deno.test({
    name: `a certificate's fault is told: ${what.source}${ca ? ", with --ca" : ""}`,
    ignore: !hasOpenSsl,
    fn: async () => {
      const name = await make();
      await rejects(lengthOf(name, host, ca), (error: unknown) => {
        const { message, hint } = error as GretunError;
        match(`${message}. ${hint}`, what);
        return true;
      });
    },
  });
}

Deno.test({
  name: "a certificate that is not yet valid is told",
  ignore: !hasOpenSsl,
  fn: async () => {
    await selfSigned("q", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost");
    // In ten years: `openssl ca` alone can make such a one.
    const times = ["-startdate", "360101000000Z", "-enddate", "370101000000Z"];
    await Deno.mkdir(`${dir}/db`);
    await Deno.writeTextFile(`${dir}/db/index`, "");
    await Deno.writeTextFile(`${dir}/db/serial`, "01");
    await Deno.writeTextFile(
      `${dir}/ca.cnf`,
      "[ca]\ndefault_ca=c\n[c]\ndatabase=db/index\nserial=db/serial\nnew_certs_dir=db\n" +
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:localhost\n",
    );
    await openssl("req", ...KEY, "-subj", "/CN=x", "-keyout", "p.key", "-out", "p.csr");
    const by = ["-config", "ca.cnf", "-extensions", "e", "-cert", "q.pem", "-keyfile", "q.key"];
    await openssl("ca", "-batch", "-notext", ...by, "-in", "p.csr", "-out", "p.pem", ...times);
    await rejects(lengthOf("p", "localhost", "q"), /is not yet valid/);
  },
});

Deno.test({
  name: "a WebSocket goes by OpenSSL too",
  ignore: !hasOpenSsl,
  fn: async () => {
    const name = await selfSigned("r", "/CN=localhost");
    await using server = serve(name);
    const url = new URL(`wss://localhost:${server.addr.port}/`);
    const dialer = systemDialer({ caFile: `${dir}/${name}.pem` });
    using socket = await openWebSocket(dialer, url, systemRandom, signal);
    const length = await new Promise((resolve, reject) => {
      socket.start({
        onMessage: (bytes) => resolve(bytes.length),
        onClosed: (reason) => reject(new Error(reason)),
      });
    });
    strictEqual(length, 50_000);
  },
});

// --- what is trusted

const PEM = (name: string) => `-----BEGIN CERTIFICATE-----\n${name}\n-----END CERTIFICATE-----`;

function files(all: Record<string, string>): TrustFiles {
  return {
    read: (path) => all[path],
    list: (dir) => Object.keys(all).filter((path) => path.startsWith(`${dir}/`)),
  };
}

const STORES: [string, Record<string, string>, Record<string, string>, string][] = [
  [
    "the system's bundle",
    { "/etc/ssl/certs/ca-certificates.crt": `${PEM("a")}\n${PEM("b")}` },
    {},
    "a b",
  ],
  ["another system's", { "/etc/pki/tls/certs/ca-bundle.crt": PEM("a") }, {}, "a"],
  [
    "a file in its place",
    {
      "/etc/ssl/certs/ca-certificates.crt": PEM("a"),
      "/mine": PEM("b"),
    },
    { SSL_CERT_FILE: "/mine" },
    "b",
  ],
  [
    "folders",
    { "/x/1": PEM("a"), "/x/2": "none", "/y/3": PEM("b") },
    { SSL_CERT_DIR: "/x:/y" },
    "a b",
  ],
  ["nothing", {}, { SSL_CERT_FILE: "/gone" }, ""],
];

for (const [name, all, environment, expected] of STORES) {
  Deno.test(`systemCertificates(): ${name}`, () => {
    const found = systemCertificates(files(all), (name) => environment[name]);
    strictEqual(found.map((pem) => pem.split("\n")[1]).join(" "), expected);
  });
}

Deno.test("ownCertificates(): a file without any is told", async () => {
  strictEqual(ownCertificates(files({ "/a": `text\n${PEM("a")}` }), "/a").length, 1);
  for (const path of ["/none", "/gone"]) {
    await rejects(
      async () => ownCertificates(files({ "/none": "x" }), path),
      /--ca ".*" has no cert/,
    );
  }
});
