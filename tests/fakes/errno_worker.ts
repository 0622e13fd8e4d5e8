/** A new thread whose first system call fails: what errno it reads, and how many libraries it opens for that. */
import { bulk, bulkErrno } from "../../lib/linux/bulk.ts";

let opened = 0;
const { dlopen } = Deno;
Deno.dlopen = (path, symbols) => {
  opened++;
  return dlopen(path, symbols);
};

bulk().readv(-1, new Uint8Array(16), 1);
opened = 0;
const errno = bulkErrno();
(self as unknown as Worker).postMessage({ errno, opened });
