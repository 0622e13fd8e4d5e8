import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { systemRandom } from "../../../lib/edges.ts";
import { GretunError } from "../../../lib/errors.ts";
import { formatKeys, type Identity, newIdentity, parseKeys } from "../../../lib/daemon/identity.ts";
import { loadIdentity } from "../../../lib/daemon/key_file.ts";

async function withDir(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await body(`${dir}/state`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Until new keys are on the disk; `made` gets the files' names. */
async function load(dir: string, made: string[] = []): Promise<Identity> {
  let isWritten = Promise.resolve();
  const identity = await loadIdentity(dir, systemRandom, (path, written) => {
    made.push(path);
    isWritten = written;
  });
  await isWritten;
  return identity;
}

Deno.test("loadIdentity() makes keys once, private to the user", () =>
  withDir(async (dir) => {
    const made: string[] = [];
    const first = await load(dir, made);
    await load(dir, made);
    deepStrictEqual(made, [`${dir}/keys.json`]);
    strictEqual((await Deno.stat(`${dir}/keys.json`)).mode! & 0o777, 0o600);
    strictEqual((await Deno.stat(dir)).mode! & 0o777, 0o700);
    deepStrictEqual(await load(dir), first);
    deepStrictEqual([...Deno.readDirSync(dir)].map((entry) => entry.name), ["keys.json"]);
  }));

Deno.test("loadIdentity() refuses a file that others can read, and leaves it", () =>
  withDir(async (dir) => {
    await load(dir);
    await Deno.chmod(`${dir}/keys.json`, 0o640);
    await rejects(load(dir), (error) => {
      ok(error instanceof GretunError);
      ok(error.hint.includes("chmod 600"));
      return true;
    });
  }));

Deno.test(
  { name: "loadIdentity() refuses another user's file", ignore: Deno.uid() !== 0 },
  () =>
    withDir(async (dir) => {
      await load(dir);
      await Deno.chown(`${dir}/keys.json`, 65_534, null);
      await rejects(load(dir), /belongs to user 65534/);
    }),
);

Deno.test("loadIdentity() refuses a broken file without showing it", () =>
  withDir(async (dir) => {
    await Deno.mkdir(dir, { mode: 0o700 });
    await Deno.writeTextFile(`${dir}/keys.json`, '{"node_priv": "SECRET', { mode: 0o600 });
    await rejects(load(dir), (error) => {
      ok(error instanceof GretunError);
      ok(!error.message.includes("SECRET"));
      return true;
    });
    strictEqual(await Deno.readTextFile(`${dir}/keys.json`), '{"node_priv": "SECRET');
  }));

Deno.test("parseKeys() takes what formatKeys() wrote and nothing less", async () => {
  const identity = await newIdentity(systemRandom);
  const text = formatKeys(identity);
  deepStrictEqual(await parseKeys(text), identity);
  const keys = JSON.parse(text);
  const other = JSON.parse(formatKeys(await newIdentity(systemRandom)));
  for (const name of Object.keys(keys)) {
    const wrong: [string, unknown][] = [
      ["missing", undefined],
      ["not base64", "%%%%"],
      ["too short", "AAAA"],
      ["another pair's", other[name]],
    ];
    for (const [what, value] of wrong) {
      const broken = JSON.stringify({ ...keys, [name]: value });
      await rejects(parseKeys(broken), /^(Syntax|Range)Error/, `${name} ${what}`);
    }
  }
  for (const text of ["", "null", "[]", "3"]) await rejects(parseKeys(text));
});

Deno.test("loadIdentity() gives new keys at once, and tells who waits that they cannot be written", async () => {
  let written: Promise<void> | undefined;
  const place = "/proc/self/nothing is made here";
  ok(await loadIdentity(place, systemRandom, (_, promise) => written = promise));
  await rejects(written!, /cannot write .*keys\.json/);
});
