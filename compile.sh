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

# one_script FILE ENTRY: all modules as one script, which has no import.meta, and no globals of its own.
one_script() {
  "$DENO" bundle --quiet --format cjs "${DENO_FLAGS[@]}" --output "$CACHE/modules.js" "$2" 2>/dev/null
  sed -i -E 's/\bimport_meta[0-9]*\.url\b/Deno.mainModule/g' "$CACHE/modules.js"
  "$DENO" bundle --quiet --minify --format cjs --no-config --no-lock --output "$CACHE/script.js" "$CACHE/modules.js"
  { echo "(() => {"; cat "$CACHE/script.js"; echo "})();"; } >"$1"
}

# compile OUTPUT ENTRY FLAGS
compile() {
  local output=$1 entry=$2
  shift 2
  # Checked above; --no-prompt: a permission that is missing is an error, not a question.
  # --no-code-cache: Deno would read compiled code from a file in /tmp that anybody can have put there.
  "$DENO" compile --quiet --no-check --no-prompt --no-config --no-lock --no-code-cache --unstable-net \
    "$@" --output "$output" "$entry"
}

# warm_up DIRECTORY FLAGS: the code cache of "up", which tools/start.js tells of, made by the same runtime.
# It stays empty, and "up" starts 40 ms later, where what is built does not run, or may make no namespaces.
warm_up() {
  local out=$1
  shift
  : >"$out/up.cache"
  cp tools/warm_up.js "$out"
  compile "$CACHE/warm_up" "$out/warm_up.js" "$@" --include "$out/up.txt"
  if timeout 60 unshare -rn bash tools/warm_up.sh ./gretun-coord "$CACHE/warm_up" "$CACHE/up.cache" 2>/dev/null; then
    mv "$CACHE/up.cache" "$out/up.cache"
  else
    echo "compile.sh: no code cache for gretun up: two nodes do not meet in namespaces here"
  fi
  rm "$CACHE/warm_up"
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
  local entry=$out/${main%.ts}.js
  if [ "$name" = gretun ]; then
    entry=$out/start.js
    cp tools/start.js "$entry"
    one_script "$out/up.txt" lib/cli/gretun/up_program.ts
    set -- "$@" --include "$out/worker.ts"
    warm_up "$out" "$@"
    set -- "$@" --include "$out/up.txt" --include "$out/up.cache"
  fi
  compile "$CACHE/$name.new" "$entry" "$@" --include "$out/build.json"
  mv "$CACHE/$name.new" "$name"
  echo "compile.sh: ./$name ($(($(stat -c %s "$name") / 1000000)) MB)"
}

# For calls of a relay to its coordinator.
DIAL_ENV=SSL_CERT_FILE,SSL_CERT_DIR
for name in http_proxy https_proxy all_proxy no_proxy; do DIAL_ENV+=,$name,${name^^}; done
# With FFI a program can do what its user can; the rest says what it means to do.
# What held calls leave behind is cleared away sooner: less memory where nodes come and go.
build gretun-coord coord.ts "$@" --v8-flags=--max-semi-space-size=2 --allow-ffi --allow-net --allow-read --allow-write \
  --allow-env=HOME,XDG_STATE_HOME,STATE_DIRECTORY,JOURNAL_STREAM,NOTIFY_SOCKET,WATCHDOG_USEC,GRETUN_*,$DIAL_ENV --allow-sys=uid --allow-run=systemctl,journalctl,useradd,userdel,chgrp
# A start makes 4 MB of garbage: by default V8 looks through it four times until the first peer is met, which
# takes a busy machine 30 ms.
build gretun main.ts "$@" --v8-flags=--min-semi-space-size=4 --allow-ffi --allow-net --allow-read --allow-write --allow-run --allow-env --allow-sys=hostname,uid
echo "$stamp" >"$CACHE/compile.stamp"
