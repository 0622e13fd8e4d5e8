/** Where a host says that it can be reached, and whom it can reach, by the real kernel. */
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { type Family, formatEndpoint, parseCidr, parseIp } from "../../lib/addr.ts";
import { localEndpoints } from "../../lib/daemon/own/endpoints.ts";
import { resolveReachable } from "../../lib/daemon/own/reachable.ts";
import { formatMark } from "../../lib/links/mod.ts";
import type { NodeKey } from "../../lib/keys.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  withNetns,
  writeKernelFile,
} from "../../lib/linux/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

const ANY = { advertise: [], exclude: [] };
const OVERLAY = parseCidr("100.64.0.1/24");
const PEER = "ab".repeat(32) as NodeKey;

/** A namespace with a card "net0", and a bridge "gretun0", which is marked as a link of ours. */
async function inNetwork(
  body: (
    rtnl: RtNetlink,
    ip: (...args: string[]) => Promise<void>,
    within: (body: () => void) => void,
  ) => Promise<void>,
): Promise<void> {
  const name = `gretun-test-${Deno.pid}`;
  using stack = new DisposableStack();
  const netns = stack.use(createNamedNetns(name));
  stack.defer(() => deleteNamedNetns(name));
  const rtnl = stack.use(withNetns(netns, () => RtNetlink.open()));
  rtnl.createLink({ kind: "veth", up: true, name: "net0", peerName: "far0" });
  rtnl.createLink({
    kind: "bridge",
    up: true,
    name: "gretun0",
    alias: formatMark({ by: "up", port: 7777, id: PEER }),
  });
  await body(rtnl, async (...args) => {
    const { success, stderr } = await new Deno.Command("ip", { args: ["-n", name, ...args] })
      .output();
    strictEqual(success, true, `${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }, (body) => withNetns(netns, body));
}

async function until<T>(look: () => T | undefined | false): Promise<T> {
  for (let i = 0; i < 6_000; i++) {
    const value = look();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("waited a minute in vain");
}

Deno.test("localEndpoints() are the addresses that last, of families that can be used", () =>
  inNetwork(async (rtnl, ip) => {
    const add = (address: string, ...more: string[]) =>
      ip("addr", "add", address, "dev", "net0", ...more);
    await add("192.0.2.1/24");
    await add("100.64.0.1/32");
    await add("2001:db8::1/64", "nodad");
    await add("fd00::1/64", "nodad");
    await add("2001:db8::2/64", "nodad", "preferred_lft", "0");
    await add("fe80::77/64", "nodad");
    await ip("addr", "add", "2001:db8:9::1/64", "dev", "gretun0", "nodad");
    const endpoints = (...families: Family[]) =>
      localEndpoints(rtnl, { port: 7777, families, overlay: OVERLAY, interfaces: ANY }).map(
        formatEndpoint,
      ).sort();
    deepStrictEqual(endpoints(4), ["192.0.2.1:7777"]);
    deepStrictEqual(endpoints(4, 6), [
      "192.0.2.1:7777",
      "[2001:db8::1]:7777",
      "[fd00::1]:7777",
    ]);
    await ip("link", "set", "net0", "down");
    deepStrictEqual(endpoints(4, 6), []);
  }));

Deno.test("localEndpoints() have the temporary address that packets leave from", () =>
  inNetwork(async (rtnl, ip, within) => {
    within(() => {
      writeKernelFile("/proc/sys/net/ipv6/conf/net0/use_tempaddr", "2");
      writeKernelFile("/proc/sys/net/ipv6/conf/net0/accept_dad", "0");
    });
    const lifetime = ["valid_lft", "86400", "preferred_lft", "43200"];
    await ip("addr", "add", "2001:db8::1/64", "dev", "net0", "mngtmpaddr", ...lifetime);
    await ip("route", "add", "default", "via", "2001:db8::2", "dev", "net0");
    const temporary = await until(() => {
      const found = rtnl.addresses().find(({ local }) => /^2001:db8::.{5}/.test(local));
      return found?.isNotLasting && found.local;
    });
    const endpoints = () =>
      localEndpoints(rtnl, { port: 7777, families: [6], overlay: OVERLAY, interfaces: ANY })
        .map(formatEndpoint).sort();
    await until(() => endpoints().length === 2);
    deepStrictEqual(endpoints(), ["[2001:db8::1]:7777", `[${temporary}]:7777`].sort());
    await ip(
      "route",
      "change",
      "default",
      "via",
      "2001:db8::2",
      "dev",
      "net0",
      "src",
      "2001:db8::1",
    );
    deepStrictEqual(endpoints(), ["[2001:db8::1]:7777"]);
  }));

Deno.test("resolveReachable() gives what there is a route to, over each family", () =>
  inNetwork(async (rtnl, ip) => {
    const names = ["198.51.100.1:3478", "[2001:db8:1::1]:3478", "[2001:db8:2::1]:3478"];
    const find = async (...families: Family[]) =>
      (await resolveReachable(names, families, rtnl)).map(({ endpoint }) => endpoint.ip);
    await rejects(find(4, 6), /no route to 198\.51\.100\.1:3478, /);
    await ip("addr", "add", "2001:db8::1/64", "dev", "net0", "nodad");
    await ip("route", "add", "2001:db8:1::/64", "via", "2001:db8::2", "dev", "net0");
    deepStrictEqual(await find(4, 6), [parseIp("2001:db8:1::1")]);
    await rejects(find(4), /no route/);
    await ip("addr", "add", "192.0.2.1/24", "dev", "net0");
    await ip("route", "add", "default", "via", "192.0.2.2");
    await ip("route", "add", "unreachable", "2001:db8:1::1");
    deepStrictEqual(await find(4, 6), [parseIp("198.51.100.1")]);
    await rejects(resolveReachable(["198.51.100.1"], [6], rtnl), /no IPv6 address/);
    deepStrictEqual(await resolveReachable([], [4, 6], rtnl), []);
  }));
