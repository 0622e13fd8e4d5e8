/** How a running program is asked: who may, what is replaced, and that no side waits for ever. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import {
  askControlSocket,
  type ControlHandler,
  type ControlQuestion,
  groupIdOf,
  jsonLines,
  readControlLines,
  serveControlSocket,
  textAnswer,
} from "../../lib/control_socket.ts";
import { GretunError, NoDaemonError } from "../../lib/errors.ts";

const HINT = "Start one";

interface Place extends AsyncDisposable {
  directory: string;
  path: string;
  question: ControlQuestion;
  serve(handler: ControlHandler): Promise<AsyncDisposable>;
}

async function place(): Promise<Place> {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/test.sock`;
  return {
    directory,
    path,
    question: { path, pathname: "/v1/status", program: "daemon", hint: HINT },
    serve: (handler) => serveControlSocket({ path, program: "daemon" }, handler),
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}

Deno.test("an answer may take a while, and may be refused in words", async () => {
  await using at = await place();
  await using _server = await at.serve(async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/v1/echo") return new Response(await request.text());
    if (pathname === "/v1/fault") throw new Error("no luck");
    return pathname === "/v1/status" ? new Response("fine") : textAnswer(404, "not found");
  });
  strictEqual(await askControlSocket(at.question), "fine");
  const echo = { ...at.question, pathname: "/v1/echo", method: "POST", body: { a: [1] } } as const;
  strictEqual(await askControlSocket(echo), '{"a":[1]}');
  await rejects(askControlSocket({ ...at.question, pathname: "/other" }), /refuses: not found/);
  await rejects(askControlSocket({ ...at.question, pathname: "/v1/fault" }), /refuses: no luck/);
  const { mode } = await Deno.lstat(at.path);
  strictEqual(mode! & 0o777, 0o600);
});

Deno.test("nobody there, or a socket that a killed program left behind", async () => {
  await using at = await place();
  await rejects(askControlSocket(at.question), NoDaemonError);
  await using stale = await at.serve(() => new Response("old"));
  await Deno.rename(at.path, `${at.path}.kept`);
  await stale[Symbol.asyncDispose]();
  await Deno.rename(`${at.path}.kept`, at.path);
  await rejects(askControlSocket(at.question), NoDaemonError);
  await using _server = await at.serve(() => new Response("new"));
  strictEqual(await askControlSocket(at.question), "new");
});

Deno.test("a program that answers is not pushed aside, and nothing but a socket is replaced", async () => {
  await using at = await place();
  {
    await using _first = await at.serve(() => new Response("first"));
    await rejects(at.serve(() => new Response("second")), /another daemon answers/);
    strictEqual(await askControlSocket(at.question), "first");
  }
  await rejects(Deno.lstat(at.path), Deno.errors.NotFound);
  await Deno.writeTextFile(at.path, "precious");
  await rejects(at.serve(() => new Response("")), /is not a socket/);
  await rejects(askControlSocket(at.question), /is not a socket/);
  strictEqual(await Deno.readTextFile(at.path), "precious");
  await Deno.remove(at.path);
  await Deno.symlink("/dev/null", at.path);
  await rejects(at.serve(() => new Response("")), /is not a socket/);
});

const NOBODY = 65_534;

Deno.test({
  name: "a socket that another user planted is neither asked nor replaced",
  ignore: Deno.uid() !== 0,
  async fn() {
    await using at = await place();
    await using _planted = await at.serve(() => new Response("lies"));
    await Deno.chown(at.path, NOBODY, NOBODY);
    await Deno.chmod(at.directory, 0o1777);
    await rejects(askControlSocket(at.question), /belongs to another user/);
    await rejects(at.serve(() => new Response("")), /belongs to another user/);
    // Root asks the program of a user in that user's own directory.
    await Deno.chmod(at.directory, 0o755);
    await Deno.chown(at.directory, NOBODY, NOBODY);
    strictEqual(await askControlSocket(at.question), "lies");
  },
});

Deno.test({
  name: "a socket may be opened to a group, and to nobody else",
  ignore: Deno.uid() !== 0,
  async fn() {
    await using at = await place();
    await using _server = await serveControlSocket(
      { path: at.path, program: "daemon", groupId: groupIdOf("daemon")! },
      () => new Response("fine"),
    );
    const { mode, gid } = await Deno.lstat(at.path);
    deepStrictEqual([mode! & 0o777, gid], [0o660, groupIdOf("daemon")]);
    strictEqual(groupIdOf("no-such-group"), undefined);
  },
});

Deno.test("an answer that does not come in time", async () => {
  await using at = await place();
  const { promise, resolve } = Promise.withResolvers<void>();
  await using _server = await at.serve(async () => {
    await promise;
    return new Response("late");
  });
  const error = await askControlSocket({ ...at.question, timeoutMs: 50 }).catch((e) => e);
  resolve(); // the server waits for it at its end, however this test ends
  ok(error instanceof GretunError && !(error instanceof NoDaemonError));
  match(error.message, /did not answer within 0.05 s/);
});

Deno.test("lines come as they are made, and their source ends when the reader goes", async () => {
  await using at = await place();
  const ended = Promise.withResolvers<void>();
  const made: number[] = [];
  async function* count() {
    try {
      for (let i = 0;; i++) {
        made.push(i);
        yield { i, text: "a\nb" };
      }
    } finally {
      ended.resolve();
    }
  }
  await using _server = await at.serve(() => jsonLines(count()));
  const read: unknown[] = [];
  for await (const line of readControlLines(at.question)) {
    read.push(line);
    if (read.length === 3) break;
  }
  deepStrictEqual(read, [0, 1, 2].map((i) => ({ i, text: "a\nb" })));
  await ended.promise;
  ok(made.length < 100_000);
});
