/** The coordinator's key and database in their files. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { openStore } from "../../../lib/cli/coord/open_store.ts";
import { keyPath, openKeySeed } from "../../../lib/cli/coord/coordinator_key.ts";

const seed = (n: number) => new Uint8Array(32).fill(n);

function inDirectory(test: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("the key is made once, for its owner alone, and is the same ever after", () => {
  inDirectory((directory) => {
    const path = keyPath(`${directory}/state/coord.db`);
    strictEqual(path, `${directory}/state/coord.signing-key`);
    deepStrictEqual(openKeySeed(path, seed(1)), seed(1));
    deepStrictEqual(openKeySeed(path, seed(2)), seed(1));
    strictEqual(Deno.statSync(path).mode! & 0o777, 0o600);
    strictEqual(Deno.statSync(`${directory}/state`).mode! & 0o777, 0o700);
  });
});

const BAD: [name: string, text: string, mode: number, why: RegExp][] = [
  ["others can read it", btoa("x".repeat(32)), 0o640, /others can use it/],
  ["it is short", btoa("x"), 0o600, /has 1 bytes/],
  ["it is none", "?", 0o600, /cannot use the coordinator's key/],
];
for (const [name, text, mode, why] of BAD) {
  Deno.test(`a key file is refused and left alone: ${name}`, () => {
    inDirectory((directory) => {
      const path = `${directory}/coord.signing-key`;
      Deno.writeTextFileSync(path, text);
      Deno.chmodSync(path, mode);
      throws(() => openKeySeed(path, seed(1)), why);
      strictEqual(Deno.readTextFileSync(path), text);
    });
  });
}

const SOMEBODY = 65_534;
const PLANTED: [name: string, plant: (directory: string) => void, why: RegExp][] = [
  ["a directory that others can write", (dir) => Deno.chmodSync(dir, 0o1777), /by others/],
  ["another user's directory", (dir) => Deno.chownSync(dir, SOMEBODY, null), /to user 65534/],
  ...["coord.db", "coord.signing-key"].map((name): typeof PLANTED[number] => [
    `another user's ${name}`,
    (dir) => {
      Deno.writeTextFileSync(`${dir}/${name}`, btoa("x".repeat(32)), { mode: 0o600 });
      Deno.chownSync(`${dir}/${name}`, SOMEBODY, null);
    },
    /belongs to user 65534/,
  ]),
];
for (const [name, plant, why] of PLANTED) {
  Deno.test({ name: `nothing of others is used: ${name}`, ignore: Deno.uid() !== 0 }, () => {
    inDirectory((directory) => {
      plant(directory);
      const path = `${directory}/coord.db`;
      throws(() => {
        using _store = openStore(path);
        openKeySeed(keyPath(path), seed(1));
      }, why);
    });
  });
}
