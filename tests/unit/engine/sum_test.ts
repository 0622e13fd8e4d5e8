import { strictEqual } from "node:assert/strict";
import { onesComplementSum } from "../../../lib/checksum.ts";
import { Arena } from "../../../lib/engine/arena.ts";
import { plainSum, vectorSum } from "../../../lib/engine/sum.ts";
import { SUM_BINARY } from "../../../lib/engine/sum_binary.ts";
import { randomBytes, seededRandom } from "../../ip_packets.ts";

Deno.test("both sums are the internet checksum at every place and length", () => {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 4 });
  const arena = Arena.over(memory);
  const sums = { plain: plainSum(arena), vector: vectorSum(memory) };
  const random = seededRandom(1);
  for (let i = 0; i < 1000; i++) {
    const bytes = randomBytes(random, random(4) === 0 ? random(1500) : random(150));
    const at = random(70);
    arena.bytes.fill(0xff);
    arena.bytes.set(bytes, at);
    for (const [name, sum] of Object.entries(sums)) {
      strictEqual(
        sum(at, bytes.length),
        onesComplementSum(bytes),
        `${name}, ${bytes.length} at ${at}`,
      );
    }
  }
});

Deno.test("the largest packet of the largest words does not overflow", () => {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 4 });
  const arena = Arena.over(memory);
  arena.bytes.fill(0xff);
  for (const sum of [plainSum(arena), vectorSum(memory)]) {
    strictEqual(sum(1, 65_535), onesComplementSum(arena.bytes.subarray(1, 65_536)));
  }
});

Deno.test("sum_binary.ts is what tools/wat.mjs makes of sum.wat", async () => {
  const root = new URL("../../../", import.meta.url);
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-lock", "--no-config", "--allow-read", "tools/wat.mjs"],
    ...{ cwd: root, stdin: "piped", stdout: "piped", stderr: "inherit" },
  });
  const child = command.spawn();
  await (await Deno.open(new URL("lib/engine/sum.wat", root))).readable.pipeTo(child.stdin);
  const { stdout } = await child.output();
  strictEqual(new TextDecoder().decode(stdout).trim(), SUM_BINARY);
});
