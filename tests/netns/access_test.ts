/** What a policy lets far ends open, by real packets: the rules alone, on an interface between hosts. */
import { deepStrictEqual, fail, strictEqual } from "node:assert/strict";
import { AccessGuard } from "../../lib/dataplane/guard/access.ts";
import { linuxHost } from "../../lib/host/mod.ts";
import { type Host as LabHost, Lab } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { type Access, parseAccess, union } from "../../lib/policy/access.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

/** For what is not to come, and for what is on a loaded machine. */
const REFUSED_MS = 400;
const PATIENCE_MS = 20_000;
const access = (text: string): Access => union(...text.split(" ").filter(Boolean).map(parseAccess));

/** Whether a TCP connection comes about, as is `expected`. */
async function connects(from: LabHost, to: LabHost, port: number, expected = true) {
  const { stdout } = await from.run("timeout", [
    ...[
      `${(expected ? PATIENCE_MS : REFUSED_MS) / 1000}`,
      "bash",
      "-c",
      `exec 3<>/dev/tcp/${to.ip}/${port} && echo yes`,
    ],
  ]);
  return stdout.includes("yes");
}

async function pings(from: LabHost, to: LabHost, expected = true): Promise<boolean> {
  const waitMs = expected ? PATIENCE_MS : REFUSED_MS;
  const args = ["-c", "1", "-W", `${waitMs / 1000}`, to.ip];
  return (await from.run("ping", args)).code === 0;
}

function listen(host: LabHost, port: number): Deno.Listener {
  return host.within(() => ({ listener: Deno.listen({ hostname: host.ip, port }) })).listener;
}

class Datagrams implements Disposable {
  readonly socket: Deno.DatagramConn;
  readonly received: string[] = [];
  readonly #ended: Promise<void>;

  constructor(host: LabHost, port: number, answer = false) {
    const open = () => Deno.listenDatagram({ transport: "udp", hostname: host.ip, port });
    this.socket = host.within(() => ({ socket: open() })).socket;
    this.#ended = this.#read(answer);
  }

  async #read(answer: boolean): Promise<void> {
    try {
      while (true) {
        const [bytes, from] = await this.socket.receive();
        this.received.push(new TextDecoder().decode(bytes.subarray(0, 16)));
        if (answer) await this.socket.send(bytes, from);
      }
    } catch {
      // closed
    }
  }

  async send(text: string, to: LabHost, port: number): Promise<void> {
    const address = { transport: "udp", hostname: to.ip, port } as const;
    await this.socket.send(new TextEncoder().encode(text), address);
  }

  async gets(text: string, expected = true): Promise<boolean> {
    const endMs = performance.now() + (expected ? PATIENCE_MS : REFUSED_MS);
    while (performance.now() < endMs && !this.received.includes(text)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return this.received.includes(text);
  }

  [Symbol.dispose](): void {
    this.socket.close();
  }
}

Deno.test("access: what is open is reached, what is not is not, answers come, nothing is left", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const [near, far] = [lab.publicHost("near"), lab.publicHost("far")];
  const ifindex = near.within(() => {
    using rtnl = RtNetlink.open();
    return rtnl.links().find(({ name }) => name !== "lo")!.ifindex;
  });
  using _a = listen(near, 80);
  using _b = listen(near, 8001);
  using _c = listen(near, 22);
  using _d = listen(far, 443);
  using _dns = new Datagrams(near, 53, true);
  using _ntp = new Datagrams(near, 123, true);
  using client = new Datagrams(far, 4000);
  using _theirs = new Datagrams(far, 7000, true);
  using own = new Datagrams(near, 6000);
  const options = { role: "up", port: 7777, onFault: fail } as const;
  const guard = near.within(() => new AccessGuard(host, options));
  near.within(() => guard.place("far", ifindex));
  const set = (text: string) => near.within(() => guard.allow("far", access(text)));
  strictEqual((await near.run("nft", ["list", "ruleset"])).stdout, "");

  set("tcp:80,8000-8999 udp:53");
  const reaches = async (...expected: number[]) => {
    const ports = [];
    for (const port of [22, 80, 8001]) {
      if (await connects(far, near, port, expected.includes(port))) ports.push(port);
    }
    deepStrictEqual(ports, expected);
  };
  await reaches(80, 8001);
  await client.send("dns", near, 53);
  strictEqual(await client.gets("dns"), true);
  await client.send("ntp", near, 123);
  strictEqual(await client.gets("ntp", false), false);
  // In fragments, of which only the first has ports.
  await client.send("large ntp".padEnd(4000), near, 123);
  await client.send("large dns".padEnd(4000), near, 53);
  strictEqual(await client.gets("large dns".padEnd(16)), true);
  strictEqual(await client.gets("large ntp".padEnd(16), false), false);
  strictEqual(await pings(far, near, false), false);

  // What this host opens is answered, whatever the far end may open.
  strictEqual(await connects(near, far, 443), true);
  strictEqual(await pings(near, far), true);
  await own.send("ask", far, 7000);
  strictEqual(await own.gets("ask"), true);
  // But an answer from elsewhere is none.
  await client.send("stray", near, 6000);
  strictEqual(await own.gets("stray", false), false);

  set("icmp");
  await reaches();
  strictEqual(await pings(far, near), true);
  await client.send("dns again", near, 53);
  strictEqual(await client.gets("dns again", false), false);
  set("any");
  await reaches(22, 80, 8001);
  strictEqual(guard.refused().get("against-policy")! >= 6, true);
  near.within(() => guard[Symbol.dispose]());
  strictEqual((await near.run("nft", ["list", "ruleset"])).stdout, "");
});

Deno.test("access: a connection goes on when the rules come, and when they close its port", async () => {
  await using lab = Lab.create({ prefix: `gretun-test-${Deno.pid}-` });
  await using host = linuxHost();
  const [near, far] = [lab.publicHost("near"), lab.publicHost("far")];
  const ifindex = near.within(() => {
    using rtnl = RtNetlink.open();
    return rtnl.links().find(({ name }) => name !== "lo")!.ifindex;
  });
  using listener = listen(far, 443);
  const { connecting } = near.within(() => ({
    connecting: Deno.connect({ hostname: far.ip, port: 443 }),
  }));
  using client = await connecting;
  using server = await listener.accept();
  const options = { role: "up", port: 7777, onFault: fail } as const;
  using guard = near.within(() => new AccessGuard(host, options));
  near.within(() => {
    guard.place("far", ifindex);
    guard.allow("far", access(""));
  });
  // Only the server speaks, as with a subscription: nothing of it was tracked before.
  const buffer = new Uint8Array(5);
  for (const text of ["hello", "again"]) {
    await server.write(new TextEncoder().encode(text));
    strictEqual(await client.read(buffer), 5);
    strictEqual(new TextDecoder().decode(buffer), text);
  }
});
