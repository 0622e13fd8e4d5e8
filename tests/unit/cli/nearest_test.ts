/** What somebody meant. */
import { strictEqual } from "node:assert/strict";
import { nearest } from "../../../lib/cli/nearest.ts";

const COMMANDS = ["up", "peers", "status", "delete", "create", "completion", "coordinator"];
const CASES: [word: string, meant: string | undefined][] = [
  ["peer", "peers"],
  ["pers", "peers"],
  ["satus", "status"],
  ["stauts", "status"],
  ["creat", "create"],
  ["coordinater", "coordinator"],
  ["u", "up"],
  ["down", undefined],
  ["wireguard", undefined],
  ["", undefined],
];

for (const [word, meant] of CASES) {
  Deno.test(`"${word}" ${meant ? `is near ${meant}` : "is nothing that is known"}`, () => {
    strictEqual(nearest(word, COMMANDS), meant);
  });
}
