/** SHA-256 of secrets, so that they have one length. */
export async function sha256(secret: Uint8Array | string): Promise<Uint8Array> {
  const bytes = typeof secret === "string" ? new TextEncoder().encode(secret) : secret.slice();
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
