/** The state directory on this machine's disk: what somebody else could have put there is refused. */
import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { openPolicy } from "../../lib/cli/coord/policy_file.ts";
import { readSecretFile } from "../../lib/cli/secret_file.ts";
import { readSettingsFile } from "../../lib/cli/settings.ts";
import { readDirectory, systemFiles } from "../../lib/hub/mod.ts";
import { openStateDir, refuseEverybodys } from "../../lib/state_dir.ts";
import { GretunError } from "../../lib/errors.ts";

const SOMEBODY = 65_534;
const ignore = Deno.uid() !== 0;

/** A directory that only this user can write. */
function temporary(): { path: string } & Disposable {
  const path = Deno.makeTempDirSync();
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

Deno.test("a state directory is made, and keeps files for their owner alone", () => {
  using root = temporary();
  const state = openStateDir(`${root.path}/a/b`);
  strictEqual(state.read("file"), undefined);
  state.write("file", "one");
  state.write("file", "two");
  strictEqual(state.read("file"), "two");
  strictEqual(Deno.statSync(`${root.path}/a/b/file`).mode! & 0o777, 0o600);
  deepStrictEqual([...Deno.readDirSync(`${root.path}/a/b`)].map(({ name }) => name), ["file"]);
  state.remove("file");
  state.remove("file");
  strictEqual(state.read("file"), undefined);
});

const DIRECTORIES: [string, (path: string) => void, RegExp][] = [
  ["of somebody else", (path) => Deno.chownSync(path, SOMEBODY, null), /belongs to user 65534/],
  ["that others can write", (path) => Deno.chmodSync(path, 0o777), /can be written by others/],
  ["that a group can write", (path) => Deno.chmodSync(path, 0o770), /can be written by others/],
];
for (const [name, change, expected] of DIRECTORIES) {
  Deno.test({ name: `a state directory ${name} is refused`, ignore }, () => {
    using root = temporary();
    const path = `${root.path}/state`;
    Deno.mkdirSync(path);
    change(path);
    throws(() => openStateDir(path), expected);
    Deno.symlinkSync(path, `${root.path}/link`);
    throws(() => openStateDir(`${root.path}/link`), expected, "by a link, too");
  });
}

const SHARED: [what: string, change: (file: string, directory: string) => void, why?: RegExp][] = [
  ["root's own", () => {}],
  ["a group's", (file) => Deno.chmodSync(file, 0o664)],
  ["another user's, where only that user writes", (file) => Deno.chownSync(file, SOMEBODY, null)],
  ["everybody's", (file) => Deno.chmodSync(file, 0o666), /everybody can write to/],
  ["root's, where everybody writes", (_, directory) => Deno.chmodSync(directory, 0o1777)],
  ["planted", (file, directory) => {
    Deno.chownSync(file, SOMEBODY, null);
    Deno.chmodSync(directory, 0o1777);
  }, /belongs to user 65534, in a directory that everybody can write to/],
];
for (const [what, change, why] of SHARED) {
  const name = `a file of an operator, ${what}, is ${why ? "refused" : "taken"}`;
  Deno.test({ name, ignore }, () => {
    using root = temporary();
    const file = `${root.path}/file`;
    Deno.writeTextFileSync(file, "");
    Deno.symlinkSync(file, `${root.path}/link`);
    change(file, root.path);
    for (const path of [file, `${root.path}/link`]) {
      if (why) throws(() => refuseEverybodys(path), why);
      else refuseEverybodys(path);
    }
  });
}

Deno.test({
  name: "clients, policies and settings that everybody can put there are refused",
  ignore,
}, () => {
  using root = temporary();
  Deno.writeTextFileSync(`${root.path}/alice`, "");
  Deno.chmodSync(root.path, 0o777);
  const why = /everybody can write to/;
  throws(() => readDirectory(systemFiles, root.path), why);
  Deno.chmodSync(root.path, 0o755);
  Deno.chmodSync(`${root.path}/alice`, 0o666);
  match(readDirectory(systemFiles, root.path).problems.join(), why);
  throws(() => openPolicy(`${root.path}/alice`), why);
  throws(() => readSettingsFile(["--config", `${root.path}/alice`], ""), why);
  throws(() => readSecretFile(`${root.path}/alice`), why);
});

Deno.test("a state directory that cannot be made is said", () => {
  throws(() => openStateDir("/proc/gretun"), GretunError);
});

Deno.test({
  name: "root's file in a directory that a service has got by now is the service's",
  ignore,
}, () => {
  using root = temporary();
  const state = openStateDir(root.path);
  Deno.chownSync(root.path, SOMEBODY, SOMEBODY);
  state.write("file", "text");
  strictEqual(Deno.statSync(`${root.path}/file`).uid, SOMEBODY);
});

Deno.test("a file that cannot be read is told with what to do", () => {
  using root = temporary();
  const state = openStateDir(root.path);
  throws(() => state.read("x".repeat(300)), (error) => error instanceof GretunError);
});

const FILES: [string, (path: string) => void, RegExp][] = [
  ["of somebody else", (path) => Deno.chownSync(path, SOMEBODY, null), /belongs to user 65534/],
  ["that others can write", (path) => Deno.chmodSync(path, 0o606), /can be written by others/],
  ["that is a link", (path) => {
    Deno.removeSync(path);
    Deno.symlinkSync("/etc/passwd", path);
  }, /is no regular file/],
  ["that is a pipe", (path) => {
    Deno.removeSync(path);
    new Deno.Command("mkfifo", { args: [path] }).outputSync();
  }, /is no regular file/],
];
for (const [name, change, expected] of FILES) {
  Deno.test({ name: `a file ${name} in it is not believed`, ignore }, () => {
    using root = temporary();
    const state = openStateDir(root.path);
    state.write("file", "text");
    change(`${root.path}/file`);
    throws(() => state.read("file"), expected);
    state.write("file", "ours");
    strictEqual(state.read("file"), "ours", "it is replaced, not written through");
  });
}
