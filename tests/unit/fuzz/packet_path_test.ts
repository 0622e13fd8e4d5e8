/** Packets come out of the user-space path where they belong, or nowhere; bench/fuzz.ts tries more. */
import { ok } from "node:assert/strict";
import { DIRECTIONS, ENCAPSULATIONS, fuzzPath } from "../../packet_path.ts";

const PACKETS = 3_000;
const seed = Number(Deno.env.get("GRETUN_FUZZ_SEED") ?? Date.now() % 2 ** 31);

for (const direction of DIRECTIONS) {
  for (const encapsulation of ENCAPSULATIONS) {
    Deno.test(`fuzzing: packets ${direction}, ${encapsulation}, seed ${seed}`, () => {
      const { packets, delivered } = fuzzPath(direction, encapsulation, PACKETS, seed);
      ok(delivered > packets / 10, `${delivered} of ${packets}`);
    });
  }
}
