import { deepStrictEqual, ok } from "node:assert/strict";
import { giveMemoryBack, readKernelFile } from "../../../lib/linux/mod.ts";
import { unchangedFiles } from "../../../lib/linux/memory.ts";

readKernelFile("/proc/self/status"); // opens libc outside the tests, which look for leaks

const map = (line: string, anonymousKb: number) =>
  `${line}\nSize: 4 kB\nRss: 4 kB\nAnonymous: ${`${anonymousKb}`.padStart(8)} kB\nVmFlags: rd mr\n`;

Deno.test("only what no process has changed of a file is given back", () => {
  const smaps = [
    map("55d0a000-55d0c000 r--p 00000000 fe:01 1234       /usr/local/bin/gretun", 0),
    map("55d0c000-55d10000 r-xp 00002000 fe:01 1234       /usr/local/bin/gretun", 0),
    // Relocated at the start, and then made read-only.
    map("55d10000-55d11000 r--p 00006000 fe:01 1234       /usr/local/bin/gretun", 4),
    map("55d11000-55d12000 rw-p 00007000 fe:01 1234       /usr/local/bin/gretun", 0),
    map("7f000000-7f001000 r--s 00000000 00:05 99         /dev/shm/shared", 0),
    map("7f001000-7f002000 r-xp 00000000 00:00 0          [vdso]", 0),
    map("7f002000-7f003000 r--p 00000000 00:00 0", 0),
  ].join("");
  deepStrictEqual(unchangedFiles(smaps), [
    { address: 0x55d0a000n, lengthBytes: 0x2000n },
    { address: 0x55d0c000n, lengthBytes: 0x4000n },
  ]);
});

Deno.test("a process gives pages of its program back, and runs on", () => {
  const ofFiles = () => Number(/^RssFile:\s+(\d+)/m.exec(readKernelFile("/proc/self/status"))![1]);
  const beforeKb = ofFiles();
  giveMemoryBack();
  ok(ofFiles() < beforeKb);
});
