/** Takes the lock "test" in the directory that is its argument, says so, and keeps it until killed. */
import { fileLocks } from "../lib/linux/mod.ts";

const lock = fileLocks(() => [Deno.args[0]!]).tryLock("test", "holder");
console.log(lock ? "locked" : "refused");
setInterval(() => {}, 60_000);
