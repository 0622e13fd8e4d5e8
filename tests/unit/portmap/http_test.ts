/** HTTP over real sockets, byte by byte. */
import { deepStrictEqual, rejects } from "node:assert/strict";
import { systemClock } from "../../../lib/edges.ts";
import { askHttp } from "../../../lib/portmap/http.ts";
import { systemNet } from "../../../lib/portmap/net.ts";

const access = { net: systemNet, clock: systemClock };

Deno.test("askHttp(): names as they are spelt, a length that lies, an end by reset", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const served = (async () => {
    using connection = await listener.accept();
    const buffer = new Uint8Array(4096);
    const length = await connection.read(buffer);
    const answer = "HTTP/1.1 200 OK\r\nEXT\r\ncontent-LENGTH: 5\r\n\r\n<a>ü</a>\0";
    await connection.write(new TextEncoder().encode(answer));
    return new TextDecoder().decode(buffer.subarray(0, length!));
  })();
  const { text } = await askHttp(access, {
    method: "POST",
    url: new URL(`http://127.0.0.1:${port}/ctl?x=1`),
    headers: [["SOAPAction", '"urn:x#Ask"']],
    body: "ü",
  }, AbortSignal.timeout(60_000));
  deepStrictEqual(text, "<a>ü</a>\0");
  deepStrictEqual((await served).split("\r\n"), [
    "POST /ctl?x=1 HTTP/1.1",
    `Host: 127.0.0.1:${port}`,
    "User-Agent: gretun UPnP/1.1",
    'SOAPAction: "urn:x#Ask"',
    "Content-Length: 2",
    "Connection: close",
    "",
    "ü",
  ]);
});

Deno.test("askHttp() says why there is no answer", async () => {
  const ask = (port: number) =>
    askHttp(
      access,
      { method: "GET", url: new URL(`http://127.0.0.1:${port}/`) },
      AbortSignal.timeout(60_000),
    );
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const served = listener.accept().then((connection) => connection.close());
  await rejects(ask(port), /no HTTP answer|HTTP request failed/);
  await served;
  listener.close();
  await rejects(ask(port), /HTTP request failed: .*refused/);
});
