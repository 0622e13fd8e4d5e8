/** SHA-256 of secrets, so that they have one length. */
import { createHash } from "node:crypto";

export function sha256(secret: Uint8Array | string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(secret).digest());
}
