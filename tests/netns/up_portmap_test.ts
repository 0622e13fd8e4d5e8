/** `gretun up` behind a home router that maps ports: reached where hole punching alone cannot. */
import { match, ok } from "node:assert/strict";
import { SYMMETRIC } from "../lab/mod.ts";
import { RtNetlink } from "../../lib/netlink.ts";
import { givePublicIp, isMiniupnpdThere, Miniupnpd, PUBLIC_IP } from "../miniupnpd.ts";
import { Overlay } from "../overlay.ts";

RtNetlink.open()[Symbol.dispose](); // opens libc outside the tests, which look for leaks

Deno.test({
  name: "up: a port mapping lets two hosts behind symmetric NATs meet",
  ignore: !isMiniupnpdThere,
  fn: async () => {
    await using overlay = await Overlay.start();
    const { lab } = overlay;
    const home = lab.nat("home", SYMMETRIC);
    const far = lab.nat("far", SYMMETRIC);
    givePublicIp(home, [overlay.coord, far]);
    await using _gateway = await Miniupnpd.start(home);
    const alice = overlay.node("alice", home, ["--data-plane", "tun"]);
    const bob = overlay.node("bob", far, ["--data-plane", "tun"]);
    await overlay.allDirect();
    await alice.ping(bob);
    await bob.pathTo("alice", new RegExp(`^${PUBLIC_IP}:7777$`));
    ok((await alice.report()).endpoints!.includes(`${PUBLIC_IP}:7777`));
    match(alice.log, /msg="port mapped" endpoint=192\.0\.1\.1:7777 protocol=pcp public=true/);
  },
});
