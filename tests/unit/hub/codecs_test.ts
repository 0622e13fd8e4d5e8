/** Whose a datagram is, for each encapsulation of the user-space plane. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseEndpoint } from "../../../lib/addr.ts";
import { fromHex, toHex } from "../../../lib/bytes.ts";
import { SealedCodec } from "../../../lib/hub/protocol/gretun/codec.ts";
import { BareCodec } from "../../../lib/hub/protocol/ipipou/codec.ts";
import { JtunnelCodec } from "../../../lib/hub/protocol/jtunnel/codec.ts";
import { Sealer, sessionKeys } from "../../../lib/hub/protocol/gretun/seal.ts";
import { endpointOf, equalSockAddrs, sockAddrOf } from "../../../lib/linux/mod.ts";

const INNER = fromHex("4500002400010000400166d60a0000020a0000010800645b77770001494e4a4543544544");
const A = sockAddrOf(parseEndpoint("198.51.100.7:40001"));
const B = sockAddrOf(parseEndpoint("198.51.100.7:40002"));

Deno.test("addresses in the kernel's form", () => {
  deepStrictEqual(endpointOf(A), { ip: "198.51.100.7", port: 40001 });
  strictEqual(equalSockAddrs(A, sockAddrOf(endpointOf(A))), true);
  strictEqual(equalSockAddrs(A, B), false);
});

Deno.test("bare IPv4: by where it comes from", () => {
  const log: string[] = [];
  const codec = new BareCodec((name) => log.push(name), (reason) => log.push(reason));
  codec.sources.set("198.51.100.7 40001", "alice");
  deepStrictEqual(codec.decode(INNER, A), { id: "alice", inner: INNER });
  strictEqual(codec.decode(INNER, B), undefined);
  strictEqual(codec.decode(INNER.subarray(0, 30), A), undefined);
  strictEqual(codec.encode("alice", fromHex("60".padEnd(80, "0"))), undefined, "no IPv6");
  deepStrictEqual(log, ["alice", "wrong-address"]);
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
  deepStrictEqual(codec.threads.extras?.("alice"), { farId: fromHex("0123456789abcdef") });
  deepStrictEqual(codec.threads.extras?.("bob"), {});
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
  strictEqual(toHex(codec.encode("alice", INNER)!).slice(0, 16), "fedcba9876543210");
});

Deno.test("sealed: by session; unknown, replayed and changed packets are told apart", () => {
  const log: string[] = [];
  const codec = new SealedCodec({
    onHeard: ({ name }) => log.push(name),
    onCarried: (name) => log.push(`carried ${name}`),
    onUnknownSession: () => log.push("unknown"),
    onRefused: (reason) => log.push(reason),
  }, { anySource: true });
  const keys = sessionKeys(new Uint8Array(32).fill(3), true);
  const id = fromHex("0102030405060708");
  const far = new Sealer(id, { send: keys.dataFromClient, receive: keys.dataFromHub }, true);
  const near = new Sealer(id, { send: keys.dataFromHub, receive: keys.dataFromClient }, true);
  const packet = far.seal(INNER);
  strictEqual(codec.decode(packet, A), undefined);
  strictEqual(codec.encode("alice", INNER), undefined, "no session yet");
  const session = { name: "alice", id, sealer: near };
  const changed: string[] = [];
  codec.threads.onChanged = (name) => void changed.push(name);
  codec.setSessions("alice", { sending: session, taking: [session] });
  deepStrictEqual(changed, ["alice"]);
  deepStrictEqual(codec.threads.extras?.("alice").seal?.sending, near.shared);
  deepStrictEqual(codec.decode(packet, B), { id: "alice", inner: INNER });
  strictEqual(codec.decode(packet, A), undefined);
  const forged = far.seal(INNER);
  forged[20]! ^= 1;
  strictEqual(codec.decode(forged, A), undefined);
  strictEqual(codec.decode(packet.subarray(0, 20), A), undefined);
  deepStrictEqual(log, ["unknown", "alice", "replayed", "bad-tag", "malformed"]);
  deepStrictEqual(far.open(codec.encode("alice", INNER)!), INNER);
  codec.threads.onSession?.(id, A);
  codec.setSessions("alice", undefined);
  codec.threads.onSession?.(id, A);
  strictEqual(codec.encode("alice", INNER), undefined);
  deepStrictEqual(log.slice(5), ["alice"]);
});
