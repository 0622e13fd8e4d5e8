/** What users read of what was thrown. */
import { strictEqual } from "node:assert/strict";
import { errorText } from "../../lib/errors.ts";

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
