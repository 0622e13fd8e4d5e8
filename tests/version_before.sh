#!/usr/bin/env bash
# Builds the programs of the version before into .cache/version-before, once, for tests/long: they
# meet those of today, and exploits work on them. A clone that is too shallow fetches that commit; ends with 3 where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/deno.sh
COMMIT=8b135a6e278379f474ebfc4d5fc7bff225d53a66
place=$CACHE/version-before
[ "$(cat "$place/commit" 2>/dev/null)" = "$COMMIT" ] && exit
git cat-file -e "$COMMIT^{commit}" 2>/dev/null || git fetch --quiet --depth 1 origin "$COMMIT" ||
  { echo "Error: commit $COMMIT is not in this clone: fetch all of it, with git fetch --unshallow" >&2; exit 3; }
rm -rf "$place"
mkdir -p "$place/.cache"
git archive "$COMMIT" | tar -x -C "$place"
# The same Deno, if it was installed here.
if [ -d "$TOOLS" ]; then ln -s "$TOOLS" "$place/.cache/"; fi
"$place/compile.sh"
echo "$COMMIT" >"$place/commit"
