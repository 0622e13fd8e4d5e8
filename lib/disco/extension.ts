/**
 * What nodes of this project add to pings and pongs, in bytes that all others take for padding:
 *
 *     0-3    magic, "grtn"
 *     4      version; later ones may be longer
 *     5      flags: 1 nominating
 *     6-7    zero
 *     8-15   epoch: chosen at random by each run of the sender
 *     16-23  echo: the epoch of the receiver, as the sender knows it; zero: it does not
 *     24-39  session: chosen at random by the sender, for keys of the data
 *
 * A message with the right echo was made for this run of the receiver: nobody has it from before.
 */
import { fromHex, Reader, startsWithBytes, Writer } from "../bytes.ts";

const MAGIC = fromHex("67 72 74 6e");
const VERSION = 1;
export const EXTENSION_LENGTH = 40;
const FLAG_NOMINATING = 1;
export const EPOCH_LENGTH = 8;
export const SESSION_LENGTH = 16;

export interface Extension {
  /** "This is the path": of the side that chooses. */
  nominating: boolean;
  epoch: Uint8Array;
  echo: Uint8Array;
  session: Uint8Array;
}

export function writeExtension(writer: Writer, extension: Extension | undefined): void {
  if (!extension) return;
  const { nominating, epoch, echo, session } = extension;
  writer.bytes(MAGIC).u8(VERSION).u8(nominating ? FLAG_NOMINATING : 0).u16(0);
  writer.bytes(epoch).bytes(echo).bytes(session);
}

/** Undefined where the rest of a message is something else. */
export function readExtension(rest: Uint8Array): Extension | undefined {
  if (rest.length < EXTENSION_LENGTH || !startsWithBytes(rest, MAGIC)) return undefined;
  const reader = new Reader(rest, "network").skip(MAGIC.length);
  if (reader.u8() < VERSION) return undefined;
  const nominating = (reader.u8() & FLAG_NOMINATING) !== 0;
  reader.skip(2);
  const [epoch, echo] = [reader.bytes(EPOCH_LENGTH), reader.bytes(EPOCH_LENGTH)];
  return { nominating, epoch, echo, session: reader.bytes(SESSION_LENGTH) };
}
