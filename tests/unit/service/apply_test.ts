/** Steps of an installation, done in a directory of the test's own. */
import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { GretunError } from "../../../lib/errors.ts";
import { applyStep, presentFiles, unitsNamed } from "../../../lib/service/mod.ts";

function inDirectory(body: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    body(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const modeOf = (path: string) => Deno.statSync(path).mode! & 0o777;

Deno.test("applyStep() writes and copies with the mode that is wanted, in place of what is there", () =>
  inDirectory((directory) => {
    const path = `${directory}/new/a.conf`;
    const write = { kind: "write", path, text: "port 7777\n", mode: 0o640 } as const;
    strictEqual(presentFiles.isSame(write), false);
    Deno.mkdirSync(`${directory}/new`);
    Deno.writeTextFileSync(path, "old", { mode: 0o666 });
    strictEqual(presentFiles.isSame(write), false);
    applyStep(write);
    deepStrictEqual([Deno.readTextFileSync(path), modeOf(path)], ["port 7777\n", 0o640]);
    const copy = { kind: "copy", from: path, to: `${directory}/bin/program` } as const;
    strictEqual(presentFiles.isSame(copy), false);
    applyStep(copy);
    deepStrictEqual([modeOf(copy.to), modeOf(`${directory}/bin`)], [0o755, 0o755]);
    deepStrictEqual([write, copy].map((step) => presentFiles.isSame(step)), [true, true]);
    Deno.writeTextFileSync(copy.to, "port 7778\n");
    strictEqual(presentFiles.isSame(copy), false);
    deepStrictEqual([...Deno.readDirSync(`${directory}/bin`)].map(({ name }) => name), ["program"]);
  }));

Deno.test("applyStep() leaves nothing half made where a file cannot be written", () =>
  inDirectory((directory) => {
    const to = `${directory}/program`;
    throws(
      () => applyStep({ kind: "copy", from: `${directory}/none`, to }),
      (error) => error instanceof GretunError && /^installation stopped: /.test(error.message),
    );
    deepStrictEqual([...Deno.readDirSync(directory)], []);
  }));

Deno.test("applyStep() removes what is there, with all that is in it", () =>
  inDirectory((directory) => {
    Deno.mkdirSync(`${directory}/a/b`, { recursive: true });
    strictEqual(presentFiles.exists(`${directory}/a`), true);
    applyStep({ kind: "remove", path: `${directory}/a` });
    strictEqual(presentFiles.exists(`${directory}/a`), false);
    throws(() => applyStep({ kind: "remove", path: `${directory}/a` }), /installation stopped/);
  }));

Deno.test("applyStep() runs programs, and tells why one has failed", () =>
  inDirectory((directory) => {
    const shell = (script: string) => ({ kind: "run", command: ["sh", "-c", script] }) as const;
    applyStep(shell(`echo done > ${directory}/out`));
    strictEqual(Deno.readTextFileSync(`${directory}/out`), "done\n");
    throws(
      () => applyStep(shell("echo first; echo 'no such unit.' >&2; exit 5")),
      /: no such unit$/,
    );
    throws(() => applyStep(shell("exit 5")), /exit code 5$/);
    applyStep({ ...shell("exit 5"), mayFail: true });
    const missing = { kind: "run", command: [`${directory}/none`] } as const;
    throws(() => applyStep(missing), (error) => {
      match(String(error), /cannot run .*none/);
      return error instanceof GretunError && /systemd/.test(error.hint);
    });
    applyStep({ ...missing, mayFail: true });
  }));

Deno.test("presentFiles.hasUser() looks for the whole name", () => {
  deepStrictEqual(["root", "roo", "nobody-has-this"].map(presentFiles.hasUser), [
    ...[true, false, false],
  ]);
});

/** In place of systemctl, for this process. */
function withSystemctl(script: string, body: () => void): void {
  inDirectory((directory) => {
    Deno.writeTextFileSync(`${directory}/systemctl`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    Deno.writeTextFileSync(
      `${directory}/journalctl`,
      `#!/bin/sh\ncase "$1" in -o) echo "Error: no token. Give one.";; esac\n`,
      { mode: 0o755 },
    );
    const path = Deno.env.get("PATH")!;
    Deno.env.set("PATH", `${directory}:${path}`);
    try {
      body();
    } finally {
      Deno.env.set("PATH", path);
    }
  });
}

Deno.test("unitsNamed() gives services, those that run and those that are files, each once", () => {
  const script = `case "$1" in
    list-units) echo "gretun@site.service loaded active running x"; echo "gretun.service loaded"
      echo "gretun@gone.service not-found inactive dead x";;
    *) echo "gretun.service enabled"; echo "gretun@.service disabled"; echo "gretun.socket";;
  esac`;
  withSystemctl(script, () => {
    deepStrictEqual(unitsNamed("gretun"), ["gretun@site.service", "gretun.service"]);
  });
});

Deno.test("a service that does not start is told with the program's own last words", () =>
  withSystemctl("echo 'Job failed, see the journal.' >&2; exit 1", () => {
    const run = (...command: string[]) => () => applyStep({ kind: "run", command });
    throws(run("systemctl", "start", "gretun"), /start gretun failed: no token\. Give one$/);
    throws(run("systemctl", "daemon-reload"), /daemon-reload failed: Job failed, see the journal$/);
  }));
