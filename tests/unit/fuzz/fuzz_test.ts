/** Whatever comes, decoders give a result or an error of theirs; bench/fuzz.ts tries it for longer. */
import "../../cheap_errors.ts";
import { strictEqual } from "node:assert/strict";
import { toHex } from "../../../lib/bytes.ts";
import { errorText } from "../../../lib/errors.ts";
import { DECODERS } from "../../decoders.ts";
import { fuzz } from "../../fuzz.ts";

/** Together about 20 seconds of one core. */
const INPUTS = 15_000;
const seed = Number(Deno.env.get("GRETUN_FUZZ_SEED") ?? Date.now() % 2 ** 31);

for (const decoder of DECODERS) {
  Deno.test(`fuzzing: ${decoder.name}, seed ${seed}`, async () => {
    const { failures, inputs } = await fuzz(decoder, INPUTS, seed);
    const told = failures.map(({ input, error }) =>
      `${(error as Error).name ?? ""} ${errorText(error)} of ${toHex(input)}`
    );
    strictEqual(told.join("\n"), "");
    strictEqual(inputs, INPUTS);
  });
}
