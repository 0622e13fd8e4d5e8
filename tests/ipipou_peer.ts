/** A client of ipipou's made of iproute2 and of bytes from its description. */
import { createPrivateKey, sign } from "node:crypto";
import { concatBytes, fromHex, toBase64 } from "../lib/bytes.ts";
import type { Host } from "./lab/mod.ts";
import { HUB_PORT } from "./hub_lab.ts";
import { shell } from "./hub_scenarios.ts";

/** Of RFC 8032, test 1. */
export const SEED = fromHex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
export const PUBLIC = fromHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
const PKCS8 = fromHex("302e020100300506032b657004220420");

/** 73 bytes: signature, five bytes of time, four of salt. By node's Ed25519, not by ours. */
export function ipipouPayload(secret: string): Uint8Array {
  const seconds = Math.floor(Date.now() / 1000);
  const signed = new Uint8Array(9);
  new DataView(signed.buffer).setUint32(1, seconds);
  crypto.getRandomValues(signed.subarray(5));
  const der = concatBytes(PKCS8, SEED);
  // deno-lint-ignore no-explicit-any -- Buffer is not needed for it
  const key = createPrivateKey({ key: der as any, format: "der", type: "pkcs8" });
  const message = concatBytes(signed, new TextEncoder().encode(secret));
  return concatBytes(new Uint8Array(sign(null, message, key)), signed);
}

/** Tunnel `number` to the hub, from port 10000 + `number`. */
export async function ipipouClient(host: Host, hub: string, number: number): Promise<void> {
  const port = 10_000 + number;
  const encap = `encap fou encap-sport ${port} encap-dport ${HUB_PORT}`;
  await shell(
    host,
    `ip fou add port ${port} ipproto 4
     ip link add ipipou${number} type ipip remote ${hub} local ${host.ip} ttl inherit ${encap}
     ip address add 172.28.0.${2 * number + 1} peer 172.28.0.${2 * number} dev ipipou${number}
     ip link set ipipou${number} up`,
  );
}

export interface IpipouScheme {
  name: string;
  /** Lines of the client's file; `ip` is where it comes from. */
  file: (ip: string) => string;
  payload: () => Uint8Array;
}

export const IPIPOU_SCHEMES: IpipouScheme[] = [
  {
    name: "token",
    file: () => "auth-token Elephant-of-a-token\n",
    payload: () => new TextEncoder().encode("Elephant-of-a-token"),
  },
  {
    name: "key",
    file: () => `auth-remote-pubkey-b64 ${toBase64(PUBLIC)}\nauth-secret topsecret\n`,
    payload: () => ipipouPayload("topsecret"),
  },
  {
    name: "address, with an empty packet",
    file: (ip) => `remote ${ip}\n`,
    payload: () => new Uint8Array(),
  },
];
