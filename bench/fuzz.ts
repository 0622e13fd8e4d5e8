/**
 * Fuzzes decoders, and the user-space path of packets, for as long as wanted: each with so many
 * inputs, made from a seed. Time is the processor's.
 *
 *     deno run -A bench/fuzz.ts [--inputs 1000000] [--seed N] [--only NAME|TEXT]
 */
import "../tests/cheap_errors.ts";
import process from "node:process";
import { parseArgs } from "@std/cli/parse-args";
import { toHex } from "../lib/bytes.ts";
import { errorText } from "../lib/errors.ts";
import { DECODERS } from "../tests/decoders.ts";
import { fuzz } from "../tests/fuzz.ts";
import { DIRECTIONS, ENCAPSULATIONS, fuzzPath } from "../tests/packet_path.ts";

const args = parseArgs(Deno.args, { string: ["only", "inputs", "seed"] });
const inputs = Number(args.inputs ?? 1_000_000);
const seed = Number(args.seed ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);
console.log("decoder                            inputs  outcomes  us/input  slowest ms  failures");
let hasFailed = false;
const named = DECODERS.filter(({ name }) => name === args.only);
const wanted = DECODERS.filter(({ name }) => name.includes(args.only ?? ""));
const cpuMicroseconds = () => {
  const { user, system } = process.cpuUsage();
  return user + system;
};
for (const decoder of named.length > 0 ? named : wanted) {
  const before = cpuMicroseconds();
  const done = await fuzz(decoder, inputs, seed);
  const perInput = (cpuMicroseconds() - before) / done.inputs;
  console.log([
    decoder.name.padEnd(31),
    String(done.inputs).padStart(10),
    String(done.outcomes).padStart(10),
    perInput.toFixed(1).padStart(10),
    done.slowestMs.toFixed(1).padStart(12),
    String(done.failures.length).padStart(10),
  ].join(""));
  for (const { input, error } of done.failures) {
    console.log(`  ${errorText(error)}: ${toHex(input)}`);
  }
  hasFailed ||= done.failures.length > 0;
}

const paths = DIRECTIONS.flatMap((direction) =>
  ENCAPSULATIONS.map((encapsulation) => ({
    name: `packets ${direction}, ${encapsulation}`,
    run: () => fuzzPath(direction, encapsulation, inputs, seed),
  }))
);
for (const { name, run } of paths.filter(({ name }) => name.includes(args.only ?? ""))) {
  const startMs = performance.now();
  const { packets, delivered } = run();
  const perPacket = (performance.now() - startMs) * 1000 / packets;
  console.log(
    `${name}: ${packets} packets, ${delivered} delivered, ${perPacket.toFixed(1)} us each`,
  );
}
if (hasFailed) Deno.exit(1);
