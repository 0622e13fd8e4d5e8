/** Gives memory back to the kernel that a program needed once, and holds for nothing. */
import { libc } from "./libc.ts";
import { readKernelFile } from "./process.ts";

/** asm-generic/mman-common.h: pages are read from their file again when they are needed. */
const MADV_DONTNEED = 4;
/** One that nothing can write, with the path of its file (proc(5), /proc/pid/maps). */
const OF_FILE =
  /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+ +\/.*\n(?:\w+:.*\n)*?Anonymous: +0 kB$/gm;

export interface Mapping {
  address: bigint;
  lengthBytes: bigint;
}

/** Of files, in the text of /proc/pid/smaps, of which this process has changed no page. */
export function unchangedFiles(smaps: string): Mapping[] {
  return [...smaps.matchAll(OF_FILE)].map(([, start, end]) => {
    const address = BigInt(`0x${start}`);
    return { address, lengthBytes: BigInt(`0x${end}`) - address };
  });
}

/** What the allocator keeps free. */
export function trimHeap(): void {
  libc().malloc_trim(0n);
}

/** That, and pages of the program itself, of which a start needs most: others are read again. */
export function giveMemoryBack(): void {
  trimHeap();
  for (const { address, lengthBytes } of unchangedFiles(readKernelFile("/proc/self/smaps"))) {
    libc().madvise(address, lengthBytes, MADV_DONTNEED);
  }
}
