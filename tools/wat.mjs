// WebAssembly text on standard input, its binary in base64 on standard output. For lib/engine/sum_binary.ts:
//   deno run --no-lock --no-config --allow-read tools/wat.mjs < lib/engine/sum.wat
// Not in deno.lock: whatever is there becomes a part of the programs.
import wabt from "npm:wabt@1.0.39";

const { parseWat } = await wabt();
const text = await new Response(Deno.stdin.readable).text();
const { buffer } = parseWat("sum.wat", text, { simd: true }).toBinary({});
console.log(btoa(String.fromCharCode(...buffer)));
