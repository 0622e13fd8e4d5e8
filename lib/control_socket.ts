/**
 * How a running program is asked: HTTP on a unix socket that belongs to its user and opens to nobody
 * else, but for a group where one is named. Both sides have time limits, and an answer may be a stream of JSON lines.
 */
import { aborted } from "./edges.ts";
import { errorText, GretunError, NoDaemonError } from "./errors.ts";
import { endServer } from "./http.ts";
import { directoryOf } from "./state_dir.ts";

/** What an open request gets to finish when the program stops. */
const SHUTDOWN_MS = 300;
/** Until an answer begins. */
const HANDLER_MS = 10_000;
/** Until the whole answer, or the next line of a stream that says something regularly, is there. */
const ANSWER_MS = 15_000;
/** A client that does not read any more loses its stream. */
const STALLED_MS = 15_000;
const ONLY_THE_USER = 0o177;
const GROUP_TOO = 0o660;

export type ControlHandler = (request: Request) => Response | Promise<Response>;

/**
 * Serves until disposed. A socket that a killed program left behind is replaced. Throws
 * `GretunError` when another program answers there, or the path is not this user's to have.
 */
export async function serveControlSocket(
  { path, program, groupId }: { path: string; program: string; groupId?: number },
  handler: ControlHandler,
): Promise<AsyncDisposable> {
  try {
    await makeWay(path, program);
    const options = { path, transport: "unix", onListen: () => {} } as const;
    const server = withUmask(ONLY_THE_USER, () => Deno.serve(options, limited(handler)));
    if (groupId !== undefined) await openTo(groupId, path);
    const { ino } = await Deno.lstat(path);
    return {
      async [Symbol.asyncDispose]() {
        await endServer(server, SHUTDOWN_MS);
        // Another program may have taken the place of a removed socket.
        const now = await Deno.lstat(path).catch(() => undefined);
        if (now?.ino === ino) await Deno.remove(path).catch(() => {});
      },
    };
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    const why = errorText(cause);
    const hint = /^Address family not supported/.test(why)
      ? "Allow AF_UNIX in RestrictAddressFamilies= of its service"
      : "Give a writable directory with a shorter path with --state-dir";
    throw new GretunError(`cannot listen on ${path}: ${why}`, hint, { cause });
  }
}

async function openTo(groupId: number, path: string): Promise<void> {
  try {
    // The service's own group is that already, and its sandbox lets it change none.
    if ((await Deno.lstat(path)).gid !== groupId) await Deno.chown(path, null, groupId);
    await Deno.chmod(path, GROUP_TOO);
  } catch (cause) {
    throw new GretunError(
      `cannot give ${path} to the group ${groupName(groupId)}: ${errorText(cause)}`,
      "Name a group that the daemon's user is in",
      { cause },
    );
  }
}

/** Nothing is there afterwards, or it throws. */
async function makeWay(path: string, program: string): Promise<void> {
  if (!await isThere(path)) return;
  await checkOwner(path);
  if (await whoAnswers(path) !== "nobody") {
    throw new GretunError(
      `another ${program} answers at ${path}`,
      "Stop it first, or give this one another --state-dir",
    );
  }
  await Deno.remove(path).catch((cause) => {
    throw new GretunError(
      `cannot replace ${path}: ${errorText(cause)}`,
      "Run as the user that owns it, or give another --state-dir",
      { cause },
    );
  });
}

/** Binding makes the file: nobody else gets in between that and a change of its mode. */
function withUmask<T>(mask: number, action: () => T): T {
  const before = Deno.umask(mask);
  try {
    return action();
  } finally {
    Deno.umask(before);
  }
}

function limited(handler: ControlHandler): ControlHandler {
  return async (request) => {
    try {
      const limit = AbortSignal.timeout(HANDLER_MS);
      const late = aborted(limit).then(() => textAnswer(504, "no answer in time"));
      return await Promise.race([Promise.resolve(handler(request)), late]);
    } catch (error) {
      return textAnswer(500, errorText(error));
    }
  };
}

/** An answer in words: what a handler says instead of a result. */
export function textAnswer(status: number, text: string): Response {
  return new Response(`${text}\n`, { status });
}

/**
 * Each value as a line of JSON, made when the client has read the one before. The values' generator
 * is ended when the client goes, or reads nothing for a while.
 */
export function jsonLines(values: AsyncIterable<unknown>): Response {
  const iterator = values[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let stalled: ReturnType<typeof setTimeout> | undefined;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      clearTimeout(stalled);
      const { done, value } = await iterator.next();
      if (done) return controller.close();
      controller.enqueue(encoder.encode(JSON.stringify(value) + "\n"));
      stalled = setTimeout(() => {
        controller.error(new Error("nobody reads"));
        void iterator.return?.();
      }, STALLED_MS);
    },
    async cancel() {
      clearTimeout(stalled);
      await iterator.return?.();
    },
  }, { highWaterMark: 0 });
  return new Response(body, { headers: { "content-type": "application/jsonl" } });
}

export interface ControlQuestion {
  path: string;
  /** Of the URL, with its query. */
  pathname: string;
  method?: "GET" | "POST";
  /** Sent as JSON. */
  body?: unknown;
  /** What is asked, as "daemon". */
  program: string;
  /** What to do when nobody answers: an imperative sentence without a final period. */
  hint: string;
  /** What to do when it refuses, if that is known. */
  remedy?: string;
  timeoutMs?: number;
  signal?: AbortSignal;
}

/**
 * The body of the answer. Throws {@link NoDaemonError} when nobody answers there, and `GretunError`
 * when this user may not ask, the answer takes too long, or it is a refusal.
 */
export async function askControlSocket(question: ControlQuestion): Promise<string> {
  const limitMs = question.timeoutMs ?? ANSWER_MS;
  const limit = AbortSignal.timeout(limitMs);
  try {
    await using answer = await open(question, limit);
    return await answer.response.text();
  } catch (cause) {
    if (!limit.aborted) throw cause;
    throw new GretunError(
      `the ${question.program} at ${question.path} did not answer within ${limitMs / 1000} s`,
      "Check whether it is stopped or overloaded, and restart it if it stays so",
      { cause },
    );
  }
}

/** The values of a stream of {@link jsonLines}, until the signal. Throws as the other one does. */
export async function* readControlLines(question: ControlQuestion): AsyncGenerator<unknown> {
  await using answer = await open(question);
  const { body } = answer.response;
  if (!body) return;
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line !== "") yield JSON.parse(line);
  }
}

interface Answer extends AsyncDisposable {
  response: Response;
}

async function open(question: ControlQuestion, limit?: AbortSignal): Promise<Answer> {
  const { path, pathname, method = "GET", body, program } = question;
  await reach(question);
  await using stack = new AsyncDisposableStack();
  const client = stack.use(Deno.createHttpClient({ proxy: { transport: "unix", path } }));
  const signals = [limit, question.signal].filter((signal) => signal !== undefined);
  let response: Response;
  try {
    response = await fetch(`http://gretun${pathname}`, {
      client,
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.any(signals),
    });
  } catch (cause) {
    question.signal?.throwIfAborted();
    throw noDaemon(question, cause);
  }
  if (!response.ok) {
    const why = errorText(await response.text());
    const { remedy = "See its log for the reason" } = question;
    throw new GretunError(
      `the ${program} refuses: ${why}`,
      response.status === FORBIDDEN ? AS_ITS_USER : remedy,
    );
  }
  const held = stack.move();
  return { response, [Symbol.asyncDispose]: () => held[Symbol.asyncDispose]() };
}

/** Throws unless somebody whom this user trusts listens there. */
async function reach(question: ControlQuestion): Promise<void> {
  const { path } = question;
  try {
    if (await isThere(path)) await checkOwner(path);
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (cause) {
    if (cause instanceof GretunError) throw cause;
    if (isDenied(cause)) throw denied(question, cause);
    throw noDaemon(question, cause);
  }
}

const AS_ITS_USER = "Run the command as the user that runs it, as with sudo";
const FORBIDDEN = 403;

function denied({ program, path }: ControlQuestion, cause: unknown): GretunError {
  const group = groupThatMay(path);
  return new GretunError(
    `may not ask the ${program} at ${path}: permission denied`,
    group === undefined
      ? AS_ITS_USER
      : `Add yourself to group ${group} and log in again (sudo usermod -aG ${group} $USER), or use sudo`,
    { cause },
  );
}

/** Whose members may ask there, if it is not the user's alone. */
function groupThatMay(path: string): string | undefined {
  try {
    const { gid, mode } = Deno.lstatSync(path);
    return (mode! & GROUP_TOO) === GROUP_TOO ? groupName(gid!) : undefined;
  } catch {
    return undefined; // in a directory that is closed to us
  }
}

/** Undefined: there is no such group. */
export function groupIdOf(name: string): number | undefined {
  const line = groups().find(([each]) => each === name);
  return line && Number(line[2]);
}

const groupName = (id: number) =>
  groups().find(([, , each]) => each === String(id))?.[0] ?? `${id}`;

function groups(): string[][] {
  return Deno.readTextFileSync("/etc/group").split("\n").map((line) => line.split(":"));
}

function noDaemon({ program, path, hint }: ControlQuestion, cause: unknown): NoDaemonError {
  return new NoDaemonError(`no ${program} answers at ${path}`, hint, { cause });
}

function isDenied(error: unknown): boolean {
  return error instanceof Deno.errors.PermissionDenied;
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Whether a program is there; "denied" where this user may not ask it. */
export async function whoAnswers(path: string): Promise<"program" | "denied" | "nobody"> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return "program";
  } catch (error) {
    return isDenied(error) ? "denied" : "nobody";
  }
}

/**
 * In a directory that others may write to, anybody can put a socket where a program is looked for,
 * and tell whatever they like. So it belongs to this user or to root, or to the owner of a
 * directory that nobody else can write to.
 */
async function checkOwner(path: string): Promise<void> {
  const file = await Deno.lstat(path);
  if (!file.isSocket) {
    throw new GretunError(
      `${path} is not a socket`,
      "Move it away, or give another --state-dir",
    );
  }
  const directory = await Deno.stat(directoryOf(path));
  const isShared = ((directory.mode ?? 0) & 0o022) !== 0;
  const trusted = [0, Deno.uid(), ...(isShared ? [] : [directory.uid])];
  if (!trusted.includes(file.uid)) {
    throw new GretunError(
      `${path} belongs to another user (id ${file.uid}), in a directory that others can write to`,
      "Give a directory of your own with --state-dir",
    );
  }
}
