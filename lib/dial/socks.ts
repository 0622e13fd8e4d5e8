/** A way through a SOCKS 5 proxy (RFC 1928), with a name and password where it wants one (RFC 1929). */
import type { ByteStream } from "../byte_stream.ts";
import { Writer } from "../bytes.ts";
import { BufferedReader } from "../buffered_reader.ts";

const VERSION = 5;
const METHOD = { none: 0, password: 2 } as const;
const LOGIN_VERSION = 1;
const CONNECT = 1;
const ADDRESS_LENGTH: Readonly<Record<number, number>> = { 1: 4, 4: 16 };
const DOMAIN_NAME = 3;

/** RFC 1928 section 6. */
const REPLIES: readonly string[] = [
  "",
  "a general failure",
  "its rules do not allow it",
  "the network is unreachable",
  "the host is unreachable",
  "the connection was refused",
  "the time is over",
  "it knows no CONNECT",
  "it does not know this kind of address",
];

export interface SocksTarget {
  /** Resolved by the proxy. */
  hostname: string;
  port: number;
}

/** Undefined when `stream` leads to the target from now on; else why not. */
export async function connectBySocks(
  stream: ByteStream,
  { hostname, port }: SocksTarget,
  login: { name: string; password: string } | undefined,
): Promise<string | undefined> {
  const reader = new BufferedReader(stream);
  const methods = login ? [METHOD.none, METHOD.password] : [METHOD.none];
  await stream.write(Uint8Array.of(VERSION, methods.length, ...methods));
  const [version, method] = await reader.exactly(2);
  if (version !== VERSION) return "it is no SOCKS 5 proxy";
  if (method === METHOD.password && login) {
    await stream.write(encodeLogin(login));
    const [, status] = await reader.exactly(2);
    if (status !== 0) return "it does not take this name and password";
  } else if (method !== METHOD.none) {
    return "it wants a name and password";
  }
  const name = new TextEncoder().encode(hostname);
  if (name.length > 255) return "the name is too long";
  await stream.write(
    new Writer("network").u8(VERSION).u8(CONNECT).u8(0).u8(DOMAIN_NAME).u8(name.length).bytes(name)
      .u16(port).finish(),
  );
  const [, reply, , kind] = await reader.exactly(4);
  const length = ADDRESS_LENGTH[kind!] ?? (await reader.exactly(1))[0]!;
  await reader.exactly(length + 2); // where the proxy sends from
  return reply === 0 ? undefined : REPLIES[reply!] ?? `its reply is ${reply}`;
}

function encodeLogin({ name, password }: { name: string; password: string }): Uint8Array {
  const [first, second] = [name, password].map((text) =>
    new TextEncoder().encode(text).slice(0, 255)
  );
  return new Writer("network").u8(LOGIN_VERSION).u8(first!.length).bytes(first!)
    .u8(second!.length).bytes(second!).finish();
}
