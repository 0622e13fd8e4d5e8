import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { fromBase64, fromHex, Reader, toBase64, toHex, Writer } from "../../lib/bytes.ts";

Deno.test("Writer keeps every value when it has to grow", () => {
  const small = new Writer("network", 1).u8(1).u16(0x0203).u32(0x04050607).i32(-1)
    .u64(0x08090a0b0c0d0e0fn).bytes(Uint8Array.of(0xaa)).zeros(2).align(8).finish();
  strictEqual(toHex(small), "01020304050607ffffffff08090a0b0c0d0e0faa00000000");
});

Deno.test("Writer and Reader agree in both byte orders", () => {
  for (const order of ["network", "little", "host"] as const) {
    const bytes = new Writer(order, 3).u8(1).u16(2).u32(3).i32(-4).u64(5n).finish();
    const reader = new Reader(bytes, order);
    deepStrictEqual(
      [reader.u8(), reader.u16(), reader.u32(), reader.i32(), reader.u64()],
      [1, 2, 3, -4, 5n],
    );
    throws(() => reader.u8());
  }
});

Deno.test("hex and base64 come back as they were, and bad text is refused without repeating it", () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  deepStrictEqual(fromHex(toHex(bytes)), bytes);
  deepStrictEqual(fromBase64(toBase64(bytes)), bytes);
  for (const bad of ["abc", "zz", "5ecret"]) {
    throws(() => fromHex(bad), (e: Error) => e instanceof SyntaxError && !e.message.includes(bad));
  }
  for (const bad of ["YQ", "Y===", "secret key"]) {
    throws(
      () => fromBase64(bad),
      (e: Error) => e instanceof SyntaxError && !e.message.includes(bad),
    );
  }
});
