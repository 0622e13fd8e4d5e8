/** The clients' directory on disk; what everybody can put into it is not believed. */
import { refuseEverybodys } from "../../state_dir.ts";
import type { Files } from "../world.ts";

export const systemFiles: Files = {
  names(directory) {
    const entries = [...Deno.readDirSync(directory)];
    refuseEverybodys(directory);
    return entries.filter(({ isDirectory }) => !isDirectory).map(({ name }) => name);
  },
  read(path, maxBytes) {
    try {
      // Opening a pipe waits for its other end, and some devices never end.
      const { isFile, size, mode } = Deno.statSync(path);
      if (!isFile) throw new Error("is no regular file");
      if (size > maxBytes) throw new Error(`is larger than ${maxBytes} bytes`);
      refuseEverybodys(path);
      return { text: Deno.readTextFileSync(path), mode: (mode ?? 0) & 0o777 };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  },
  watch(directory, onChange) {
    const watcher = Deno.watchFs(directory, { recursive: false });
    void (async () => {
      for await (const { kind } of watcher) if (kind !== "access") onChange();
    })();
    return watcher;
  },
};
