/** Keys of version 0.1 are taken over, unless another user may have put them there. */
import { strictEqual } from "node:assert/strict";
import { moveOldState } from "../../../lib/cli/gretun/state_dir.ts";
import { silentLog } from "../../../lib/edges.ts";
import { isThere } from "../../../lib/state_dir.ts";

const SOMEBODY = 65_534;

const CASES: [name: string, change: (directory: string) => void, isMoved: boolean][] = [
  ["this user's", () => {}, true],
  ["another user's", (dir) => Deno.chownSync(`${dir}/keys.json`, SOMEBODY, null), false],
  ["in another user's directory", (dir) => Deno.chownSync(dir, SOMEBODY, null), false],
];
for (const [name, change, isMoved] of CASES) {
  Deno.test(
    { name: `keys of version 0.1 are taken over: ${name}`, ignore: Deno.uid() !== 0 },
    () => {
      const root = Deno.makeTempDirSync();
      const told = { STATE_DIRECTORY: `${root}/state`, XDG_CONFIG_HOME: `${root}/config` };
      const before = Object.keys(told).map((name) => [name, Deno.env.get(name)] as const);
      for (const [name, value] of Object.entries(told)) Deno.env.set(name, value);
      try {
        Deno.mkdirSync(`${root}/config/gretun`, { recursive: true });
        Deno.writeTextFileSync(`${root}/config/gretun/keys.json`, "{}", { mode: 0o600 });
        change(`${root}/config/gretun`);
        moveOldState(`${root}/state`, silentLog);
        strictEqual(isThere(`${root}/state/keys.json`), isMoved);
      } finally {
        for (const [name, value] of before) {
          if (value === undefined) Deno.env.delete(name);
          else Deno.env.set(name, value);
        }
        Deno.removeSync(root, { recursive: true });
      }
    },
  );
}
