/** Where programs listen: addresses as given, and what "all addresses" is on a machine. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseListen } from "../../../lib/cli/listen.ts";
import { UsageError } from "../../../lib/errors.ts";
import { openListen } from "../../../lib/listen.ts";
import { CoordinatorProcess } from "../../fakes/coordinator_process.ts";

Deno.test("parseListen() reads addresses", () => {
  const cases: [string, { hostname: string; port: number }][] = [
    [":8443", { hostname: "", port: 8443 }],
    ["127.0.0.1:1", { hostname: "127.0.0.1", port: 1 }],
    ["[::1]:65535", { hostname: "::1", port: 65535 }],
    ["coord.example:443", { hostname: "coord.example", port: 443 }],
  ];
  for (const [text, expected] of cases) deepStrictEqual(parseListen("listen", text), expected);
});

Deno.test("parseListen() refuses what is no address and port", () => {
  for (const text of ["", "8443", "host", "host:", "host:0", ":65536", "::1:80", "[::1]"]) {
    throws(() => parseListen("listen", text), UsageError, text);
  }
});

const inUse = new Deno.errors.AddrInUse("Address already in use");
const noFamily = new Error("Address family not supported by protocol");

/** What each of the two tries meets, and what is open then. */
const MACHINES: [name: string, fails: Record<string, Error>, opened: string[]][] = [
  ["one socket takes both families", { "0.0.0.0": inUse }, ["::"]],
  ["the families are kept apart", {}, ["::", "0.0.0.0"]],
  ["there is no IPv6", { "::": noFamily }, ["0.0.0.0"]],
];
for (const [name, fails, opened] of MACHINES) {
  Deno.test(`openListen() on all addresses where ${name}`, () => {
    const open = ({ hostname, port }: { hostname: string; port: number }) => {
      strictEqual(port, 80);
      if (fails[hostname]) throw fails[hostname];
      return hostname;
    };
    deepStrictEqual(openListen({ hostname: "", port: 80 }, open), opened);
  });
}

Deno.test("openListen() throws when the port is taken, on all addresses and on one", () => {
  const open = () => {
    throw inUse;
  };
  throws(() => openListen({ hostname: "", port: 80 }, open), Deno.errors.AddrInUse);
  throws(() => openListen({ hostname: "127.0.0.1", port: 80 }, open), Deno.errors.AddrInUse);
});

Deno.test("openListen() leaves nothing open where one of both families cannot be had", () => {
  const closed: string[] = [];
  const open = ({ hostname }: { hostname: string }) => {
    if (hostname === "0.0.0.0") throw noFamily;
    return hostname;
  };
  const close = (hostname: string) => void closed.push(hostname);
  throws(() => openListen({ hostname: "", port: 80 }, open, close), noFamily);
  deepStrictEqual(closed, ["::"]);
});

Deno.test("gretun-coord -listen :PORT, with one dash, answers on IPv4 and IPv6", async () => {
  const hosts = ["127.0.0.1", ...(hasIpv6() ? ["[::1]"] : [])];
  using free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = free.addr;
  free.close();
  await using _coord = await CoordinatorProcess.start(["-listen", `:${port}`, "-state=:memory:"]);
  for (const host of hosts) {
    const response = await fetch(`http://${host}:${port}/nothing`);
    strictEqual(response.status, 404, await response.text());
  }
});

function hasIpv6(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}
