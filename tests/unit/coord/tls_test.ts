/** The program with a certificate, and what a node says that does not trust it. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { CoordClient } from "../../../lib/coord/client.ts";
import { openSsl } from "../../../lib/dial/openssl.ts";
import { systemClock, systemRandom } from "../../../lib/edges.ts";
import { errorLine } from "../../../lib/cli/command.ts";
import { fakeNode } from "../../fakes/coordinator.ts";
import { CoordinatorProcess, runCoordinator } from "../../fakes/coordinator_process.ts";

/** A certificate for 127.0.0.1 that nobody signed; undefined where there is no openssl. */
async function makeCertificate(dir: string): Promise<string[] | undefined> {
  const [cert, key] = [`${dir}/cert.pem`, `${dir}/key.pem`];
  const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  args.push("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert);
  args.push("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE");
  try {
    const made = await new Deno.Command("openssl", { args, stderr: "null" }).output();
    return made.success ? ["--cert", cert, "--key", key] : undefined;
  } catch {
    return undefined;
  }
}

// Opened outside of any test: it stays open, which a test would be blamed for.
openSsl();

const dir = await Deno.makeTempDir({ prefix: "gretun-coord-tls-" });
const flags = await makeCertificate(dir);
globalThis.addEventListener("unload", () => Deno.removeSync(dir, { recursive: true }));

async function lineOf(url: string): Promise<string> {
  const node = await fakeNode("a");
  const client = new CoordClient({ url, identity: node, clock: systemClock, random: systemRandom });
  const call = client.register(
    { discoKey: node.discoKey, nodeName: "a" },
    AbortSignal.timeout(60_000),
  );
  return errorLine(await call.then(() => undefined, (error) => error)).replaceAll(/:\d+/g, ":PORT");
}

Deno.test({
  name: "--cert and --key serve HTTPS; who does not trust the certificate is told so",
  ignore: flags === undefined,
  fn: async () => {
    await using process = await CoordinatorProcess.start(["--state", ":memory:", ...flags!]);
    const https = process.url.replace("http:", "https:");
    using client = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(flags![1]!)] });
    const response = await fetch(`${https}/healthz`, { client });
    deepStrictEqual([response.status, await response.text()], [200, "ok\n"]);
    const line = await lineOf(https);
    ok(
      /^Error: coordinator https:\/\/127\.0\.0\.1:PORT does not answer: the certificate of /
        .test(line),
      line,
    );
    ok(/is self-signed|unknown issuer/.test(line), line);
    ok(line.includes("with --ca"), line);
    strictEqual(
      await lineOf(process.url),
      "Error: coordinator http://127.0.0.1:PORT does not answer: HTTPS is served there, not HTTP. " +
        "Give the URL with https://: HTTPS is served there.",
    );
  },
});

Deno.test("a certificate that is missing or none is told on one line, with exit code 1", async () => {
  const file = `${dir}/text.pem`;
  await Deno.writeTextFile(file, "hello");
  for (const path of [`${dir}/missing.pem`, file]) {
    const { code, stderr } = await runCoordinator([
      ...[
        "--state",
        ":memory:",
        "--listen",
        "127.0.0.1:8443",
        "--stun-listen",
        "off",
        "--relay-listen",
        "off",
      ],
      ...["--cert", path, "--key", path],
    ]);
    strictEqual(code, 1);
    ok(/^Error: (cannot read )?--cert [^\n]+\.\n$/.test(stderr), stderr);
  }
});
