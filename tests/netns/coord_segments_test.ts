/** The coordinator's connections pass networks that lose large packets without a word. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { RtNetlink } from "../../lib/netlink.ts";
import { Overlay } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

Deno.test("coord: segments are small both ways", async () => {
  await using overlay = await Overlay.start();
  const { lab, coord } = overlay;
  const host = lab.host("alice", { behind: lab.nat("nat") });
  const { connecting } = host.within(() => ({
    connecting: Deno.connect({ hostname: coord.ip, port: 8443 }),
  }));
  using _connection = await connecting;
  for (const [side, node] of Object.entries({ host, coord })) {
    const { code, stdout } = await node.run("ss", ["-tinH", "state", "established"]);
    strictEqual(code, 0);
    // Of what a segment may have, 12 bytes are a timestamp.
    deepStrictEqual([...stdout.matchAll(/ mss:(\d+)/g)].map(([, mss]) => mss), ["1208"], side);
  }
});
