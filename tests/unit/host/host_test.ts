/** This machine as `linuxHost()` gives it: what needs no privileges, and how the rest is refused. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { parseEndpoint, parseIp } from "../../../lib/addr.ts";
import { toHex } from "../../../lib/bytes.ts";
import { systemClock } from "../../../lib/edges.ts";
import { type Host, linuxHost } from "../../../lib/host/mod.ts";
import { endpointOf, sockAddrOf, SystemError } from "../../../lib/linux/mod.ts";
import { NetlinkError, RtNetlink } from "../../../lib/netlink.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const PATIENCE_MS = 60_000;

async function until(isSo: () => boolean): Promise<void> {
  const endMs = systemClock.nowMs() + PATIENCE_MS;
  while (!isSo()) {
    ok(systemClock.nowMs() < endMs, "not in time");
    await systemClock.sleep(5);
  }
}

Deno.test("linuxHost() hands datagrams from one port to another, with where they came from", async () => {
  await using host = linuxHost();
  const heard: string[] = [];
  const bind = parseIp("127.0.0.1");
  using a = host.openUdp({ port: 0, bind }, () => {});
  using b = host.openUdp({ port: 0, bind }, (bytes, source) => {
    heard.push(`${toHex(bytes)} from ${endpointOf(source).port}`);
  });
  const to = sockAddrOf(parseEndpoint(`127.0.0.1:${b.port}`));
  for (const byte of [1, 2]) a.send(Uint8Array.of(byte), to);
  await until(() => heard.length === 2);
  deepStrictEqual(heard, [`01 from ${a.port}`, `02 from ${a.port}`]);
});

Deno.test("linuxHost() reads links of the kernel and files of /proc", async () => {
  await using host = linuxHost();
  using rtnl = host.openRtNetlink();
  ok(rtnl.links().some(({ name }) => name === "lo"));
  strictEqual(Number(host.readFile("/proc/self/stat").split(" ")[0]), Deno.pid);
  ok(host.readLink("/proc/self/ns/net")?.startsWith("net:["));
  strictEqual(host.readLink("/proc/self/ns/none"), undefined);
  strictEqual(host.loadModule("gretun_there_is_none"), false);
  using _links = host.watchNetwork(() => {});
  using _tables = host.watchTables(() => {});
});

Deno.test("linuxHost().openEngine() makes no device by a name that is none", async () => {
  await using host = linuxHost();
  await using engine = host.openEngine({
    ...{ port: 0, bind: parseIp("127.0.0.1"), encapsulation: "gre", allowFragments: false },
    control: "all",
    ...{ onControl: () => {}, onTooBig: () => {}, onFailed: () => {} },
  });
  throws(() => engine.addLink("no/name"), SystemError);
});

/** Some need privileges, or a kernel that has them. */
const OPENERS: Record<string, (host: Host) => Disposable | void> = {
  openNft: (host) => host.openNft(),
  openFou: (host) => host.openFou(),
  openRawUdp: (host) => host.openRawUdp(0, {}, () => {}),
  openRawSender: (host) => host.openRawSender(0, 4),
  tryTun: (host) => host.tryTun(),
  setChecksumOffload: (host) => host.setChecksumOffload("none0", true),
  writeFile: (host) => host.writeFile("/proc/gretun-none", ""),
};
for (const [name, open] of Object.entries(OPENERS)) {
  Deno.test(`linuxHost().${name}() works, or says by an error of its own why it does not`, async () => {
    await using host = linuxHost();
    let opened: Disposable | void;
    try {
      opened = open(host);
    } catch (error) {
      ok(error instanceof SystemError || error instanceof NetlinkError, String(error));
      return;
    }
    opened?.[Symbol.dispose]();
    ok(!["setChecksumOffload", "writeFile"].includes(name), `${name} took what is none`);
  });
}
