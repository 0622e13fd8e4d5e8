#!/usr/bin/env bash
# Makes ./gretun and ./gretun-coord, two self-contained programs. Installs Deno into .cache/ when the
# machine has none. Arguments such as --target aarch64-unknown-linux-gnu go on to "deno compile".
set -euo pipefail
cd "$(dirname "$0")"
. tools/deno.sh

case "$*" in *-h*) sed -n '2,3s/^# //p' "$0"; exit 0 ;; esac

mkdir -p "$CACHE"
stamp=$({ echo "$@"; find main.ts coord.ts lib tools compile.sh deno.json deno.lock npm_imports.json \
  -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
if [ -x gretun ] && [ -x gretun-coord ] && [ "$(cat "$CACHE/compile.stamp" 2>/dev/null)" = "$stamp" ]; then
  echo "compile.sh: gretun and gretun-coord are up to date"
  exit 0
fi

choose_packages
use_denort_of_npm
echo "compile.sh: $BUILD_WITH"
if [ -n "${DENORT_BIN:-}" ] && [ $# -gt 0 ]; then
  case "$*" in
    "--target x86_64-unknown-linux-gnu" | "--target=x86_64-unknown-linux-gnu") ;;
    *) die "\"$*\" needs dl.deno.land, which is out of reach: here only x86_64-unknown-linux-gnu can be built" ;;
  esac
fi

# The tests are checked by tests/run.sh.
"$DENO" check --quiet "${DENO_FLAGS[@]}" main.ts coord.ts lib

install_esbuild

# bundle DIRECTORY ENTRY: its modules as few files, one for each part that is loaded when it is needed:
# a program of hundreds of files takes twice as long to start.
bundle() {
  "$DENO" bundle --quiet --minify --code-splitting "${DENO_FLAGS[@]}" --outdir "$1" "$2"
}

# build NAME MAIN FLAGS
build() {
  local name=$1 main=$2 out=$CACHE/bundle/$1
  shift 2
  rm -rf "$out"
  bundle "$out" "$main"
  # The data path's threads start from a file that no other imports, and that they know by this name.
  bundle "$out/thread" lib/engine/worker.ts
  echo 'import "./thread/worker.js";' >"$out/worker.ts"
  # What "version" says. The same sources are not built again for another commit.
  printf '{"commit":"%s"}\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)" >"$out/build.json"
  # Checked above; --no-prompt: a permission that is missing is an error, not a question.
  # --no-code-cache: Deno would read compiled code from a file in /tmp that anybody can have put there.
  "$DENO" compile --quiet --no-check --no-prompt --no-config --no-lock --no-code-cache --unstable-net "$@" \
    --include "$out/build.json" --output "$CACHE/$name.new" "$out/${main%.ts}.js"
  mv "$CACHE/$name.new" "$name"
  echo "compile.sh: ./$name ($(($(stat -c %s "$name") / 1000000)) MB)"
}

# With FFI a program can do what its user can; the rest says what it means to do.
build gretun main.ts "$@" --include "$CACHE/bundle/gretun/worker.ts" --allow-ffi --allow-net --allow-read --allow-write --allow-run \
  --allow-env --allow-sys=hostname,uid
# For calls of a relay to its coordinator.
DIAL_ENV=SSL_CERT_FILE,SSL_CERT_DIR
for name in http_proxy https_proxy all_proxy no_proxy; do DIAL_ENV+=,$name,${name^^}; done
# What held calls leave behind is cleared away sooner: less memory where nodes come and go.
build gretun-coord coord.ts "$@" --v8-flags=--max-semi-space-size=2 --allow-ffi --allow-net --allow-read --allow-write \
  --allow-env=HOME,XDG_STATE_HOME,STATE_DIRECTORY,JOURNAL_STREAM,NOTIFY_SOCKET,WATCHDOG_USEC,GRETUN_*,$DIAL_ENV --allow-sys=uid --allow-run=systemctl,journalctl,useradd,userdel,chgrp
echo "$stamp" >"$CACHE/compile.stamp"
