/**
 * ICMP echo messages (RFC 792).
 *
 *     0    type: 8 echo, 0 echo reply
 *     1    code: 0
 *     2-3  checksum over the whole message
 *     4-5  identifier
 *     6-7  sequence number
 *     8-   data, which the reply repeats
 */
import { Reader, Writer } from "../bytes.ts";
import { onesComplementSum } from "../checksum.ts";

const ECHO = 8;
const ECHO_REPLY = 0;
const HEADER_LENGTH = 8;

export interface Echo {
  identifier: number;
  sequence: number;
  data: Uint8Array;
}

export function encodeEcho({ identifier, sequence, data }: Echo): Uint8Array<ArrayBuffer> {
  const message = (checksum: number) =>
    new Writer("network", HEADER_LENGTH + data.length)
      .u8(ECHO).u8(0).u16(checksum).u16(identifier).u16(sequence).bytes(data).finish();
  return message(~onesComplementSum(message(0)) & 0xffff);
}

/** Undefined for what is not a whole echo reply. */
export function decodeEchoReply(message: Uint8Array): Echo | undefined {
  if (message.length < HEADER_LENGTH || onesComplementSum(message) !== 0xffff) return undefined;
  const reader = new Reader(message, "network");
  if (reader.u8() !== ECHO_REPLY || reader.u8() !== 0) return undefined;
  reader.skip(2);
  return { identifier: reader.u16(), sequence: reader.u16(), data: reader.bytes() };
}
