/** The directory of authorised clients on disk: read as a whole, and watched. */
import { errorText, GretunError } from "../errors.ts";
import { type ClientFile, isClientName, parseClientFile, withoutConflicts } from "./clients.ts";

/** Editors write in several steps. */
const SETTLE_MS = 60;
const MAX_FILE_BYTES = 65_536;

export interface Directory {
  clients: ClientFile[];
  /** What is wrong with the others, one line each. */
  problems: string[];
}

/** Throws `GretunError` when the directory itself cannot be read. */
export function readDirectory(path: string): Directory {
  const problems: string[] = [];
  const clients: ClientFile[] = [];
  for (const name of fileNames(path)) {
    const file = `${path}/${name}`;
    if (!isClientName(name)) {
      if (!name.startsWith(".")) problems.push(`${file}: is no name of a client`);
      continue;
    }
    const parsed = readClient(file, name);
    if (parsed === undefined) continue;
    if (typeof parsed === "string") problems.push(parsed);
    else clients.push(parsed);
  }
  const { clients: kept, conflicts } = withoutConflicts(clients);
  for (const { name, with: other, cidr } of conflicts) {
    problems.push(`${path}/${name}: ${cidr} is ${other}'s already`);
  }
  return { clients: kept, problems };
}

function fileNames(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].filter(({ isDirectory }) => !isDirectory)
      .map(({ name }) => name).sort();
  } catch (cause) {
    throw new GretunError(
      `cannot read the clients' directory ${path}: ${errorText(cause)}`,
      "Make it, or name another one with --clients",
      { cause },
    );
  }
}

/** The client; what is wrong; undefined for a file that has gone meanwhile. */
function readClient(file: string, name: string): ClientFile | string | undefined {
  try {
    const { mode, size } = Deno.statSync(file);
    if (size > MAX_FILE_BYTES) return `${file}: is larger than ${MAX_FILE_BYTES} bytes`;
    const parsed = parseClientFile(name, Deno.readTextFileSync(file));
    if ("problems" in parsed) {
      return parsed.problems.map(({ line, text }) => `${file}:${line}: ${text}`).join("; ");
    }
    const { client } = parsed;
    const isSecret = client.token !== undefined || client.secret !== undefined;
    if (isSecret && ((mode ?? 0) & 0o077) !== 0) {
      return `${file}: has a secret and others can read it: run chmod 600 ${file}`;
    }
    return client;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    return `${file}: ${errorText(error)}`;
  }
}

/** Calls `onChange` soon after something changed in the directory, until it is disposed. */
export function watchDirectory(path: string, onChange: () => void): Disposable {
  const watcher = Deno.watchFs(path, { recursive: false });
  let timer: number | undefined;
  void (async () => {
    for await (const event of watcher) {
      if (event.kind === "access") continue;
      timer ??= setTimeout(() => {
        timer = undefined;
        onChange();
      }, SETTLE_MS);
    }
  })();
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      watcher.close();
    },
  };
}
