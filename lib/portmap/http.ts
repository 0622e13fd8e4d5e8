/** HTTP requests to the gateway. */
import { parseIp } from "../addr.ts";
import type { ByteStream } from "../byte_stream.ts";
import { errorText } from "../errors.ts";
import { PortMapRefusedError } from "./errors.ts";
import { withDeadline } from "./exchange.ts";
import {
  encodeHttpRequest,
  type HttpAnswer,
  type HttpRequest,
  IncomingAnswer,
} from "./http_answer.ts";
import type { GatewayAccess } from "./protocol.ts";

const REQUEST_MS = 2500;
const MAX_ANSWER_BYTES = 128 * 1024;

/** The host of `url` is an IPv4 address. Throws {@link PortMapRefusedError}, and the signal's reason. */
export async function askHttp(
  { net, clock }: Pick<GatewayAccess, "net" | "clock">,
  request: HttpRequest,
  signal: AbortSignal,
): Promise<HttpAnswer> {
  return await withDeadline(clock, REQUEST_MS, signal, async (within) => {
    try {
      const { hostname, port } = request.url;
      const to = { ip: parseIp(hostname), port: Number(port || 80) };
      using socket = await net.connect(to, within);
      const close = () => socket[Symbol.dispose]();
      within.addEventListener("abort", close, { once: true });
      await socket.write(encodeHttpRequest(request));
      const answer = await receive(socket, { clock }, within);
      within.throwIfAborted();
      if (!answer) throw new PortMapRefusedError("no HTTP answer");
      return answer;
    } catch (error) {
      within.throwIfAborted();
      if (error instanceof PortMapRefusedError) throw error;
      throw new PortMapRefusedError(`HTTP request failed: ${errorText(error)}`, { cause: error });
    }
  });
}

async function receive(
  socket: ByteStream,
  { clock }: Pick<GatewayAccess, "clock">,
  signal: AbortSignal,
): Promise<HttpAnswer | undefined> {
  const answer = new IncomingAnswer();
  while (!answer.isWhole) {
    const stop = new AbortController();
    const pause = answer.patienceMs === undefined
      ? []
      : [clock.sleep(answer.patienceMs, AbortSignal.any([stop.signal, signal])).catch(() => {})];
    const bytes = await Promise.race([socket.read(), ...pause]);
    stop.abort();
    if (!bytes) break;
    answer.push(bytes);
    if (answer.lengthBytes > MAX_ANSWER_BYTES) {
      throw new PortMapRefusedError(`an HTTP answer of more than ${MAX_ANSWER_BYTES} bytes`);
    }
  }
  return answer.finish();
}
