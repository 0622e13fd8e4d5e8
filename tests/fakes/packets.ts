/** IP packets with what matters to filters. */
import { ipBytes, parseIp } from "../../lib/addr.ts";
import { Writer } from "../../lib/bytes.ts";

export function packet(
  from: string,
  to: string,
  { protocol = 59, body = [], fragmentOffset = 0 }: {
    protocol?: number;
    body?: number[];
    /** In units of 8 bytes. */
    fragmentOffset?: number;
  } = {},
): Uint8Array<ArrayBuffer> {
  const [source, destination] = [ipBytes(parseIp(from)), ipBytes(parseIp(to))];
  const writer = new Writer("network");
  if (source.length === 4) {
    writer.u16(0x4500).u16(20 + body.length).u16(0).u16(fragmentOffset).u8(64).u8(protocol).u16(0);
  } else writer.u32(0x60000000).u16(body.length).u8(protocol).u8(64);
  return writer.bytes(source).bytes(destination).bytes(Uint8Array.from(body)).finish();
}
