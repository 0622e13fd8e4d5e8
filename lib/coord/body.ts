/** The body of a request: bounded in length and time, and read as JSON. */
import type { Clock } from "../edges.ts";
import { ApiError, MAX_BODY_LENGTH } from "./api.ts";
import { Refusal } from "./refusal.ts";

export const BODY_TIMEOUT_MS = 10_000;
/** Grows only as bytes come, so that slow callers cost little. */
const FIRST_BUFFER = 1024;

const TOO_LONG = `body is longer than ${MAX_BODY_LENGTH} bytes`;

/** At most {@link MAX_BODY_LENGTH} bytes, however slowly or endlessly they come. Throws {@link Refusal}. */
export async function readBody(request: Request, clock: Clock): Promise<Uint8Array<ArrayBuffer>> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_LENGTH) {
    throw new Refusal(413, TOO_LONG);
  }
  if (!request.body) return new Uint8Array(0);
  const reader = request.body.getReader();
  let tooSlow = false;
  using _timer = clock.timer(BODY_TIMEOUT_MS, () => {
    tooSlow = true;
    reader.cancel("too slow").catch(() => {});
  });
  let body = new Uint8Array(FIRST_BUFFER);
  let length = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (length + part.value.length > MAX_BODY_LENGTH) {
      await reader.cancel("too long").catch(() => {});
      throw new Refusal(413, TOO_LONG);
    }
    body = withRoom(body, length + part.value.length);
    body.set(part.value, length);
    length += part.value.length;
  }
  if (tooSlow) throw new Refusal(408, "body came too slowly");
  return body.slice(0, length);
}

function withRoom(buffer: Uint8Array<ArrayBuffer>, length: number): Uint8Array<ArrayBuffer> {
  if (length <= buffer.length) return buffer;
  const larger = new Uint8Array(Math.max(length, Math.min(2 * buffer.length, MAX_BODY_LENGTH)));
  larger.set(buffer);
  return larger;
}

/** Throws {@link ApiError}. */
export function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new ApiError("body is not JSON");
  }
}
