/** `gretun up` on the user-space plane, through real NATs in namespaces. */
import { match } from "node:assert/strict";
import { httpGet, Overlay, until } from "../overlay.ts";
import { testMeeting, testOverlays, testOwnWays, testTrust, twoNodes } from "../up_scenarios.ts";

testMeeting("tun");
testOverlays("tun");
testTrust("tun");
testOwnWays("tun");

// --- what has nothing to do with the plane

const PLANES = ["tun", "tun"] as const;

Deno.test("tun: addresses that change while the coordinator is away", async () => {
  await using overlay = await Overlay.start({ keepState: true });
  const [alice, bob] = await twoNodes(overlay, PLANES);
  await overlay.killCoordinator();
  for (const ip of ["10.0.1.98", "10.0.1.99"]) {
    await alice.moveTo(ip);
    await until("the new address to be seen", async () => {
      const { endpoints } = await alice.report();
      return endpoints!.includes(`${ip}:7777`);
    }, () => alice.log);
  }
  await overlay.startCoordinator();
  await alice.reaches(bob);
  await overlay.allDirect();
  await bob.ping(alice);
});

Deno.test("tun: a coordinator that has lost its state is told all again", async () => {
  await using overlay = await Overlay.start();
  await twoNodes(overlay, PLANES);
  const known = await overlay.coordinatorKnows();
  match(known, /203\.0\.113\..*203\.0\.113\./s);
  await overlay.killCoordinator();
  await overlay.startCoordinator();
  await until("the coordinator to know as much as before", async () => {
    return await overlay.coordinatorKnows() === known;
  }, () => overlay.nodes.map(({ log }) => log).join("\n"));
});

Deno.test("tun: the metrics are there from the first scrape", async () => {
  await using overlay = await Overlay.start();
  const [alice] = await twoNodes(overlay, PLANES, ["--metrics-addr", "127.0.0.1:9100"]);
  const text = await httpGet(alice.host, "127.0.0.1:9100", "/metrics");
  match(text, /^gretun_peers\{state="direct"\} 1$/m);
  match(text, /^gretun_peers\{state="punching"\} 0$/m);
  match(text, /^gretun_disco_pings_sent_total [1-9]\d*$/m);
  match(text, /^gretun_disco_pongs_received_total [1-9]\d*$/m);
  match(text, /^gretun_hole_punch_duration_seconds_count 1$/m);
  match(text, /^gretun_refused_packets_total\{reason="wrong-inner-address"\} 0$/m);
});
