/** What users read of what was thrown. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { errorLine } from "../../lib/cli/command.ts";
import { errorFields, errorText, GretunError } from "../../lib/errors.ts";

const CASES: [thrown: unknown, text: string][] = [
  [new Error("getaddrinfo ENOTFOUND nosuch.example"), "there is no such name as nosuch.example"],
  [new Error("keys may not be consistent: KeyMismatch"), "the key is not the certificate's"],
  [new Error("No space left on device (os error 28)"), "No space left on device"],
  [
    new Error("No such file or directory (os error 2): open '/a/b'"),
    "No such file or directory",
  ],
  [
    new Error(
      'Requires all access to "/sys/x.1", specify the required permissions during compilation ' +
        "using `deno compile --allow-all`",
    ),
    "not a place for files",
  ],
  [
    new Error("invalid peer certificate: Other(OtherError(UnsupportedCertVersion))"),
    "invalid peer certificate: UnsupportedCertVersion",
  ],
  ["two\n  lines", "two lines"],
];

for (const [thrown, text] of CASES) {
  Deno.test(`errorText(): ${text}`, () => strictEqual(errorText(thrown), text));
}

Deno.test("what a host has run out of is no bug of ours", () => {
  for (
    const [thrown, line] of [
      ["Too many open files (os error 24)", /^Error: Too many open files\. .*ulimit -n 1024/],
      ["open /run/x failed: ENOSPC", /^Error: open .*ENOSPC\. Free space/],
      ["Read-only file system (os error 30)", /^Error: Read-only file system\. Make/],
      ["x is not a function", /^Error: internal: .* bug/],
    ] as const
  ) match(errorLine(new Error(thrown)), line);
});

Deno.test("errorFields() has what to do where that is known", () => {
  const known = new GretunError("cannot set x", "Make it writable");
  deepStrictEqual(errorFields(known), { error: "cannot set x", hint: "Make it writable" });
  deepStrictEqual(errorFields(new Error("x is not a function")), { error: "x is not a function" });
});
