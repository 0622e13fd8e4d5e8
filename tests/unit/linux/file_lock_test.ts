/** Locks that are files: who has one, who may make them, and that they end with the process. */
import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { fileLocks } from "../../../lib/linux/mod.ts";
import { DENO_RUN } from "../../deno_run.ts";

fileLocks().holder("none"); // opens libc outside the tests, which look for leaks

const NOBODY = 65_534;
const HOLDER = import.meta.resolve("../../lock_holder.ts");

/** A directory of this test's own, and locks in it. */
function makeLocks() {
  const directory = Deno.makeTempDirSync({ prefix: "gretun-locks-" });
  return {
    directory,
    locks: fileLocks(() => [directory]),
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}

Deno.test("tryLock() holds a name until it is let go, and the file goes with it", () => {
  using made = makeLocks();
  const { locks, directory } = made;
  {
    using lock = locks.tryLock("port-7777", "up");
    ok(lock);
    strictEqual(locks.tryLock("port-7777", "hub"), undefined);
    using other = locks.tryLock("port-7778", "hub");
    ok(other);
    deepStrictEqual(locks.holder("port-7777"), { role: "up", pid: Deno.pid });
    deepStrictEqual(locks.holder("port-7778"), { role: "hub", pid: Deno.pid });
  }
  strictEqual(locks.holder("port-7777"), undefined);
  deepStrictEqual([...Deno.readDirSync(directory)], []);
  using again = locks.tryLock("port-7777", "spoke");
  ok(again);
});

Deno.test("a lock ends with a process that is killed; what it left is no hindrance", async () => {
  using made = makeLocks();
  const { locks, directory } = made;
  const child = new Deno.Command(Deno.execPath(), {
    args: [...DENO_RUN, HOLDER, directory],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read(); // it has the lock
  deepStrictEqual(locks.holder("test"), { role: "holder", pid: child.pid });
  strictEqual(locks.tryLock("test", "up"), undefined);
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  strictEqual(locks.holder("test"), undefined);
  strictEqual([...Deno.readDirSync(directory)].length, 1);
  using lock = locks.tryLock("test", "up");
  ok(lock);
});

Deno.test("a directory that others can write, or that is no directory, is not used", () => {
  using made = makeLocks();
  using shared = makeLocks();
  Deno.chmodSync(shared.directory, 0o777);
  Deno.symlinkSync(made.directory, `${shared.directory}/link`);
  const unsafe = [shared.directory, `${shared.directory}/link`, "/dev/null/x"];
  throws(() => fileLocks(() => unsafe).tryLock("test", "up"), (error: Error) => {
    match(error.message, /^no directory for locks that is this user's alone: /);
    return true;
  });
  const locks = fileLocks(() => [...unsafe, made.directory]);
  using lock = locks.tryLock("test", "up");
  ok(lock);
  deepStrictEqual(made.locks.holder("test"), { role: "up", pid: Deno.pid });
});

Deno.test({
  name: "locks of root and of the services' user are seen by each other, and kept apart",
  ignore: Deno.uid() !== 0,
  fn() {
    using made = makeLocks();
    const service = `${made.directory}/service`;
    Deno.mkdirSync(service);
    const locks = fileLocks(() => [made.directory, service], service);
    {
      using _ofRoot = locks.tryLock("port-1", "create");
      deepStrictEqual(locks.holder("port-1"), { role: "create", pid: Deno.pid });
    }
    using _ofService = fileLocks(() => [service]).tryLock("port-2", "up");
    Deno.chownSync(service, NOBODY, NOBODY); // as systemd does
    deepStrictEqual(locks.holder("port-2"), { role: "up", pid: Deno.pid });
    strictEqual(locks.tryLock("port-2", "create"), undefined);
    // Where others than root put a directory, only its owner believes what is in it.
    Deno.chmodSync(made.directory, 0o777);
    strictEqual(locks.holder("port-2"), undefined);
  },
});

Deno.test("a missing directory is made, for its owner to write alone", () => {
  using made = makeLocks();
  const directory = `${made.directory}/new`;
  using lock = fileLocks(() => [directory]).tryLock("test", "up");
  ok(lock);
  strictEqual(Deno.statSync(directory).mode! & 0o022, 0);
});
