/** The daemon's control sockets: its user's, and the one of a group that may look. */
import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import {
  askAccept,
  askDaemon,
  askDown,
  controlPath,
  type DaemonReport,
  groupPath,
  serveControl,
} from "../../../lib/daemon/control.ts";

const REPORT: DaemonReport = {
  ...{ node_key: "cd".repeat(32), node_name: "alice", coordinator: "http://x/" },
  ...{ state: "running", peers: [] },
};

Deno.test("a group may ask, and only the user may accept keys and end the daemon", async () => {
  const stateDir = await Deno.makeTempDir();
  try {
    let downs = 0;
    const asked = {
      report: () => REPORT,
      ping: () => undefined,
      accept: (peer: string) => Promise.resolve(peer === "bob"),
      down: () => void downs++,
    };
    const path = controlPath(stateDir);
    {
      await using _control = await serveControl(path, asked, Deno.gid()!);
      deepStrictEqual(await askDaemon(groupPath(path)), REPORT);
      const error = await askDown(groupPath(path)).then(() => undefined, (e) => e);
      match(error.message, /refuses: only the user that runs the daemon may end it/);
      match(error.hint, /sudo/);
      strictEqual(downs, 0);
      await rejects(askAccept(groupPath(path), "bob"), /only the user that runs the daemon/);
      await rejects(askAccept(path, "carol"), /no such peer waits/);
      await askAccept(path, "bob");
      await askDown(path);
      strictEqual(downs, 1);
    }
    deepStrictEqual([...Deno.readDirSync(stateDir)], []);
    await using _control = await serveControl(path, asked);
    await rejects(askDaemon(groupPath(path)), /no daemon answers/);
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
});
