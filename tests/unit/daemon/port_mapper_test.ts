/** When a router is asked for a port, in virtual time. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type Ip, parseIp } from "../../../lib/addr.ts";
import { PortMapper } from "../../../lib/daemon/own/port_mapper.ts";
import { silentLog } from "../../../lib/edges.ts";
import type { RtNetlink } from "../../../lib/netlink.ts";
import { FakeGateway, GATEWAY, LOCAL } from "../../fakes/gateway.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

const MINUTE_MS = 60_000;

function world() {
  const clock = new VirtualClock();
  const gateway = new FakeGateway(clock);
  const at = { local: LOCAL as Ip, rounds: 0 };
  const rtnl = {
    routeTo: () => {
      at.rounds++;
      return { gateway: GATEWAY, source: at.local };
    },
  };
  let next = 0;
  const mapper = new PortMapper({
    rtnl: rtnl as unknown as RtNetlink,
    port: 7777,
    secret: new Uint8Array(32),
    net: gateway,
    clock,
    random: (length) => Uint8Array.from({ length }, () => next++ & 0xff),
    log: silentLog,
    onChange: () => {},
  });
  return Object.assign(at, { clock, gateway, mapper });
}

Deno.test("a router that has no port mapping yet is asked again soon, and then ever less", async () => {
  const { clock, gateway, mapper } = world();
  const stop = new AbortController();
  const running = mapper.run(stop.signal);
  await clock.until(clock.sleep(20_000));
  strictEqual(mapper.external?.port, undefined);
  gateway.speaks.add("natpmp");
  await clock.until(clock.sleep(20_000));
  strictEqual(mapper.external?.port, 7777);
  stop.abort();
  await clock.until(running);
});

Deno.test("a router that never has any is asked six times an hour, and at once in another network", async () => {
  const at = world();
  const { clock, mapper } = at;
  const stop = new AbortController();
  const running = mapper.run(stop.signal);
  await clock.until(clock.sleep(60 * MINUTE_MS));
  const firstHour = at.rounds;
  await clock.until(clock.sleep(60 * MINUTE_MS));
  deepStrictEqual([firstHour, at.rounds - firstHour], [8, 6]);
  at.local = parseIp("192.168.1.77");
  at.rounds = 0;
  mapper.networkChanged();
  await clock.until(clock.sleep(40_000));
  strictEqual(at.rounds, 3, "to see it, at once, and soon again");
  stop.abort();
  await clock.until(running);
});
