/** What a service manager hears. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { systemClock } from "../../../lib/edges.ts";
import { notifyManager } from "../../../lib/linux/mod.ts";
import { libc } from "../../../lib/linux/libc.ts";
import { ServiceManager } from "../../../lib/service/manager.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";

// Opened once for the process, which is no leak.
libc();

Deno.test("ServiceManager says ready once, then that it lives, then that it stops", async () => {
  const clock = new VirtualClock();
  const said: string[] = [];
  const send = (path: string, state: string) => void said.push(`${path} ${state}`);
  const options = { socketPath: "/run/n", watchdogUs: "60000000", send, clock };
  {
    using manager = new ServiceManager(options);
    let peers = 0;
    manager.ready(() => `${peers++} peers`);
    await clock.until(clock.sleep(75_000));
  }
  // After 0, 2, 6, 14, 30 and 60 s.
  const beats = [0, 1, 2, 3, 4, 5].map((peers) => `/run/n WATCHDOG=1\nSTATUS=${peers} peers`);
  deepStrictEqual(said, ["/run/n READY=1", ...beats, "/run/n STOPPING=1"]);
});

Deno.test("ServiceManager without a manager says nothing", () => {
  const send = () => {
    throw new Error("told");
  };
  const options = { socketPath: undefined, watchdogUs: undefined, send, clock: systemClock };
  using manager = new ServiceManager(options);
  manager.ready(() => "fine");
});

Deno.test("notifyManager() reaches a datagram socket, and a missing one is no error", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/notify`;
    const socket = Deno.listenDatagram({ transport: "unixpacket", path });
    strictEqual(notifyManager(path, "READY=1"), true);
    const [bytes] = await socket.receive();
    strictEqual(new TextDecoder().decode(bytes), "READY=1");
    socket.close();
    strictEqual(notifyManager(`${directory}/none`, "READY=1"), false);
    strictEqual(notifyManager("/" + "x".repeat(200), "READY=1"), false);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
