/** The coordinator's key in its file. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
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
