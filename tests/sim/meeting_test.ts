/** Two hosts meet through NATs of every kind, directly where that can be, by relay where it cannot. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  FULL_CONE,
  type NatBehaviour,
  NO_UDP,
  PORT_RESTRICTED,
  SYMMETRIC,
  World,
} from "./world/mod.ts";

const NATS: Record<string, NatBehaviour> = {
  "full cone": FULL_CONE,
  "port-restricted": PORT_RESTRICTED,
  "port-restricted, random ports": { ...PORT_RESTRICTED, ports: "random" },
  symmetric: SYMMETRIC,
  "without UDP": NO_UDP,
};

const CASES: [a: string, b: string, state: string, path: string][] = [
  ["port-restricted", "port-restricted", "direct", "direct"],
  ["port-restricted", "port-restricted, random ports", "direct", "direct"],
  ["full cone", "symmetric", "direct", "direct"],
  ["symmetric", "symmetric", "relay", "relay-udp"],
  ["symmetric", "port-restricted, random ports", "relay", "relay-udp"],
  ["without UDP", "port-restricted", "relay", "relay-tcp"],
  ["without UDP", "without UDP", "relay", "relay-tcp"],
];

for (const [a, b, state, path] of CASES) {
  Deno.test(`hosts behind NATs "${a}" and "${b}" meet: ${path}`, async () => {
    await using world = new World();
    const coordinator = await world.coordinator();
    const left = await world.up(world.hostBehind("left", NATS[a]), coordinator);
    const right = await world.up(world.hostBehind("right", NATS[b]), coordinator);
    ok(await world.until(() => left.state(right) === state && right.state(left) === state, 30_000));
    ok(await world.connects(left, right, 1_000));
    const paths = [left.peer(right)!.path!, right.peer(left)!.path!];
    ok(paths.includes(path as typeof paths[number]), paths.join());
    strictEqual(left.ended ?? right.ended, undefined);
  });
}

Deno.test("random ports are guessed where both sides want it", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const options = { aggressivePunch: true };
  const left = await world.up(world.hostBehind("left", SYMMETRIC), coordinator, options);
  const right = await world.up(world.hostBehind("right"), coordinator, options);
  const areDirect = () => left.state(right) === "direct" && right.state(left) === "direct";
  ok(await world.until(areDirect, 300_000));
  ok(await world.connects(left, right, 1_000));
});

Deno.test("a newcomer says with its registration where it is", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const calls: string[] = [];
  const known: (readonly string[])[] = [];
  coordinator.proxy = async (request, pass) => {
    const { pathname } = new URL(request.url);
    const answer = await pass();
    if (pathname === "/v1/register") {
      known.push(
        coordinator.server!.nodes.listed().flatMap(({ endpoints }) =>
          endpoints.map(({ source }) => source)
        ),
      );
    }
    calls.push(pathname);
    return answer;
  };
  const a = await world.up(world.hostBehind("a"), coordinator);
  ok(await world.until(() => a.tunnelIp !== undefined, 5_000));
  deepStrictEqual(known, [["local", "stun"]]);
  deepStrictEqual(calls.slice(0, 2), ["/v1/stun", "/v1/register"]);
});

Deno.test("hosts of one site take the way inside", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const site = world.site();
  const left = await world.up(world.hostBehind("left", site), coordinator);
  const right = await world.up(world.hostBehind("right", site), coordinator);
  ok(await world.until(() => left.peer(right)?.path === "lan", 5_000));
  ok(await world.connects(left, right, 1_000));
});

Deno.test("a kernel plane and a user-space plane meet", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const left = await world.up(world.hostBehind("left"), coordinator, { dataPlane: "tun" });
  const right = await world.up(world.hostBehind("right"), coordinator);
  ok(await world.until(() => left.state(right) === "direct", 5_000));
  ok(await world.connects(left, right, 1_000));
});

Deno.test("a fifth of all packets lost, doubled and out of order: hosts meet all the same", async () => {
  const weather = { delayMs: 20, jitterMs: 40, loss: 0.2, duplicates: 0.1 };
  for (let seed = 1; seed <= 5; seed++) {
    await using world = new World(seed, weather);
    const coordinator = await world.coordinator();
    const left = await world.up(world.hostBehind("left"), coordinator);
    const right = await world.up(world.hostBehind("right"), coordinator);
    ok(await world.connects(left, right, 10_000), `seed ${seed}`);
  }
});
