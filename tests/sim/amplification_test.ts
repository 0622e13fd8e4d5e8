/** STUN server and relay: whose address is forged gets no more bytes than were sent in its name. */
import { ok } from "node:assert/strict";
import { encodeHello, encodeRequest, HELLO_LENGTH } from "../../lib/relay/messages.ts";
import { GRANT_LENGTH } from "../../lib/relay/grants.ts";
import { encodeBindingRequest } from "../../lib/stun/binding.ts";
import { BINDING_REQUEST, encodeStun } from "../../lib/stun/message.ts";
import { Victim } from "./hostile_member.ts";
import { SYMMETRIC, World } from "./world/mod.ts";

const PORTS = [3478, 3480, 3479, 50_000, 50_001];
const FLOOD = 200;

Deno.test("STUN and relay: forged packets are answered with no more bytes, one by one and in a flood", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.hostBehind("a", SYMMETRIC), coordinator);
  const b = await world.up(world.hostBehind("b", SYMMETRIC), coordinator);
  ok(await world.until(() => a.state(b) === "relay" || a.state(b) === "direct", 30_000));
  const { bytes: random } = world.dice;
  const binding = (attributes: { type: number; value: Uint8Array }[]) =>
    encodeStun({ type: BINDING_REQUEST, txId: random(12), attributes });
  const packets = [
    binding([]),
    encodeBindingRequest(random(12)),
    encodeBindingRequest(random(12), { change: { ip: false, port: true } }),
    ...[1, 2, 6].map((flags) => binding([{ type: 3, value: Uint8Array.of(0, 0, 0, flags) }])),
    ...[1, 2, 3, 30].map((n) => binding(Array(n).fill({ type: 0x4000, value: random(0) }))),
    ...[1, 4, 12, 40, 400].map((n) => binding([{ type: 0x8022, value: random(n) }])),
    encodeHello(random(12)),
    encodeHello(random(12)).subarray(0, HELLO_LENGTH - 1),
    await encodeRequest({
      ...{ txId: random(12), nonce: random(36), grant: random(GRANT_LENGTH) },
      ...{ node: coordinator.key, timestampMs: 1, port: 0 },
    }, async () => random(64)),
    ...[0, 1, 20, HELLO_LENGTH - 1, HELLO_LENGTH, 500, 1_200].map(random),
  ];
  let answers = 0;
  const send = (bytes: Uint8Array, victim: Victim, port: number, fromPort: number) => {
    const from = { ip: victim.ip, port: fromPort };
    world.internet.transmit({
      kind: "udp",
      from,
      to: { ip: coordinator.ip, port },
      ttl: 64,
      bytes,
    });
  };
  for (const [i, packet] of packets.entries()) {
    for (const port of PORTS) {
      const victim = new Victim(world);
      send(packet, victim, port, 2_000);
      await world.run(200);
      const first = victim.take();
      answers += first.packets;
      ok(first.bytes <= packet.length, `packet ${i} to ${port}: ${first.bytes} bytes`);
      for (let n = 0; n < FLOOD; n++) send(packet, victim, port, 3_000 + n);
      await world.run(500);
      const { bytes } = victim.take();
      ok(bytes <= FLOOD * packet.length, `packet ${i} to ${port}, ${FLOOD} times: ${bytes} bytes`);
    }
  }
  ok(answers > 30, `${answers} were answered`);
});
