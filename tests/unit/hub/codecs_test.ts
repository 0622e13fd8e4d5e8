/** Whose a datagram is, for each encapsulation of the user-space plane. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { SealedCodec } from "../../../lib/hub/protocol/gretun/codec.ts";
import { JtunnelCodec } from "../../../lib/hub/protocol/jtunnel/codec.ts";
import { Sealer, sessionKeys } from "../../../lib/hub/protocol/gretun/seal.ts";
import { endpointOf, equalSockAddrs, type SockAddr, sockAddrOf } from "../../../lib/linux/mod.ts";
import { seal } from "../../seal.ts";

const INNER = fromHex("4500002400010000400166d60a0000020a0000010800645b77770001494e4a4543544544");
const A = sockAddrOf(parseEndpoint("198.51.100.7:40001"));
const B = sockAddrOf(parseEndpoint("198.51.100.7:40002"));

Deno.test("addresses in the kernel's form", () => {
  deepStrictEqual(endpointOf(A), { ip: "198.51.100.7", port: 40001 });
  strictEqual(equalSockAddrs(A, sockAddrOf(endpointOf(A))), true);
  strictEqual(equalSockAddrs(A, B), false);
});

Deno.test("jtunnel: by identifier; what is short or no IP is refused", () => {
  const log: string[] = [];
  const codec = new JtunnelCodec(fromHex("fedcba9876543210"), {
    onPacket: (id, _source, isSignOfLife) => {
      log.push(`${id} ${isSignOfLife}`);
      return id === "0123456789abcdef" ? "alice" : undefined;
    },
    onRefused: (reason) => log.push(reason),
    onCarried: (name) => log.push(`carried ${name}`),
    farId: (name) => name === "alice" ? "0123456789abcdef" : undefined,
  });
  deepStrictEqual(codec.extras?.("alice"), { farId: fromHex("0123456789abcdef") });
  deepStrictEqual(codec.extras?.("bob"), {});
  const packet = (id: string, inner: string) => codec.decode(fromHex(id + inner), A);
  deepStrictEqual(packet("0123456789abcdef", toHex(INNER)), { id: "alice", inner: INNER });
  strictEqual(packet("0123456789abcdef", ""), undefined);
  strictEqual(packet("ffffffffffffffff", toHex(INNER)), undefined);
  strictEqual(packet("0123456789abcdef", "1234"), undefined);
  strictEqual(packet("01234567", ""), undefined);
  strictEqual(packet("fedcba9876543210", toHex(INNER)), undefined, "our own, come back");
  deepStrictEqual(log, [
    "0123456789abcdef false",
    "0123456789abcdef true",
    "ffffffffffffffff false",
    "not-ip",
    "malformed",
    "unknown-client",
  ]);
  strictEqual(toHex(codec.ownId), "fedcba9876543210");
});

Deno.test("a spoke's codec takes nothing that does not come from its hub", () => {
  const log: string[] = [];
  const takesFrom = (source: SockAddr) => equalSockAddrs(source, A);
  const onRefused = (reason: string) => void log.push(reason);
  const jtunnel = new JtunnelCodec(fromHex("fedcba9876543210"), {
    ...{ takesFrom, onRefused, onCarried: () => {}, farId: () => undefined },
    onPacket: () => "hub",
  });
  const fromAnyone = fromHex("0123456789abcdef" + toHex(INNER));
  deepStrictEqual(jtunnel.decode(fromAnyone, A), { id: "hub", inner: INNER });
  strictEqual(jtunnel.decode(fromAnyone, B), undefined);
  const sealed = new SealedCodec({
    ...{ onRefused, onHeard: () => {}, onCarried: () => {} },
    onUnknownSession: () => log.push("unknown"),
  }, takesFrom);
  for (const source of [A, B]) strictEqual(sealed.decode(new Uint8Array(60), source), undefined);
  deepStrictEqual(log, ["wrong-address", "unknown", "wrong-address"]);
});

Deno.test("sealed: by session; unknown, replayed and changed packets are told apart", () => {
  const log: string[] = [];
  const codec = new SealedCodec({
    onHeard: ({ name }) => log.push(name),
    onCarried: (name) => log.push(`carried ${name}`),
    onUnknownSession: () => log.push("unknown"),
    onRefused: (reason) => log.push(reason),
  });
  const keys = sessionKeys(new Uint8Array(32).fill(3), true);
  const id = fromHex("0102030405060708");
  const far = new Sealer(id, { send: keys.dataFromClient, receive: keys.dataFromHub }, true);
  const near = new Sealer(id, { send: keys.dataFromHub, receive: keys.dataFromClient }, true);
  const packet = seal(far, INNER);
  strictEqual(codec.decode(packet, A), undefined);
  deepStrictEqual(codec.extras("alice"), {}, "no session yet");
  const session = { name: "alice", id, sealer: near };
  const changed: string[] = [];
  codec.onChanged = (name) => void changed.push(name);
  codec.setSessions("alice", { sending: session, taking: [session] });
  deepStrictEqual(changed, ["alice"]);
  deepStrictEqual(codec.extras?.("alice").seal?.sending, near.shared);
  deepStrictEqual(codec.decode(packet, B), { id: "alice", inner: INNER });
  strictEqual(codec.decode(packet, A), undefined);
  const forged = seal(far, INNER);
  forged[20]! ^= 1;
  strictEqual(codec.decode(forged, A), undefined);
  strictEqual(codec.decode(packet.subarray(0, 20), A), undefined);
  deepStrictEqual(log, ["unknown", "alice", "replayed", "bad-tag", "malformed"]);
  codec.onSession?.(id, A);
  codec.setSessions("alice", undefined);
  codec.onSession?.(id, A);
  deepStrictEqual(codec.extras("alice"), {});
  deepStrictEqual(log.slice(5), ["alice"]);
});
