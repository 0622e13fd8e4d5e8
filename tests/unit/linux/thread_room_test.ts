import { strictEqual } from "node:assert/strict";
import { threadRoom } from "../../../lib/linux/thread_room.ts";

const room = (files: Record<string, string>) => threadRoom((path) => files[path]);

Deno.test("threadRoom(): the narrowest of a group and those around it", () => {
  const files = {
    "/proc/self/cgroup": "0::/system.slice/gretun.service\n",
    "/sys/fs/cgroup/system.slice/pids.max": "20\n",
    "/sys/fs/cgroup/system.slice/pids.current": "18\n",
    "/sys/fs/cgroup/system.slice/gretun.service/pids.max": "9\n",
    "/sys/fs/cgroup/system.slice/gretun.service/pids.current": "5\n",
  };
  strictEqual(room(files), 2);
  strictEqual(room({ ...files, "/sys/fs/cgroup/system.slice/pids.max": "max\n" }), 4);
  strictEqual(
    room({ ...files, "/sys/fs/cgroup/system.slice/pids.max": "3\n" }),
    0,
    "lowered later",
  );
});

Deno.test("threadRoom(): version 1, and a container whose path is the host's", () => {
  const files = {
    "/proc/self/cgroup": "12:cpu,cpuacct:/docker/1\n8:pids:/docker/1\n",
    "/sys/fs/cgroup/pids/pids.max": "10\n",
    "/sys/fs/cgroup/pids/pids.current": "3\n",
    "/sys/fs/cgroup/pids.max": "1\n",
    "/sys/fs/cgroup/pids.current": "1\n",
  };
  strictEqual(room(files), 7);
});

Deno.test("threadRoom(): nothing limits, or nothing is known", () => {
  strictEqual(room({}), undefined);
  const max = { "/sys/fs/cgroup/pids.max": "max\n", "/sys/fs/cgroup/pids.current": "3\n" };
  strictEqual(room({ "/proc/self/cgroup": "0::/\n", ...max }), undefined);
});
