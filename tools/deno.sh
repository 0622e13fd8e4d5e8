# Sourced by compile.sh and tests/run.sh, from the top of the repository. Finds or installs Deno and
# decides where packages come from. Sets:
#   DENO         the deno program, of version DENO_VERSION or newer
#   DENO_FLAGS   (array) what every run, check, test and compile must be given
#   DENORT_BIN   set and exported when deno compile must not download its runtime
#   BUILD_WITH   one line that says what was used

DENO_VERSION=2.4.2
DENO_SHA512=2f30cbcab44e9b6a31b7683cb231ba9e26166996acfc72c193836ce6a1217f66c6683afc2dcab6e154e74e164b7a92d42adf1c4df4f73465f73196562b049598
# A program made by "deno compile" is denort, the runtime, followed by the embedded files. This one,
# on npm, was made with the denort of DENO_VERSION, which npm has in no other form.
DENORT_PACKAGE=@vltpkg/cli-linux-x64/-/cli-linux-x64-0.0.0-18.tgz
DENORT_PACKAGE_SHA512=790bec4cb34ab2803fb07f34367d6210abbe2e1db89266c1f7b7438e19f7e29cb6dd773afbfb88e3c50d1b693f4d01487157fb49c9309eb93cd0bd341f1d5e5c
DENORT_BYTES=85186368
DENORT_SHA256=2705685d7478610b98dcd43acecd457a19810146323041c8af8a88f7dd0b5e82
# What "deno bundle" of DENO_VERSION runs; without it here it would fetch the same by itself.
ESBUILD_VERSION=0.25.5
ESBUILD_SHA512=ba18fc376a1b29313aa5267e68c51baaafb59d7c4d8d92088c28c62dfb16bd5a72ee028238beabb18d4c85187dccbb54b4023bbe980b30ae83c633bc426f6527

CACHE=$PWD/.cache
TOOLS=$CACHE/deno-$DENO_VERSION

# A local certificate authority is trusted as other programs on the machine do.
export DENO_TLS_CA_STORE=${DENO_TLS_CA_STORE:-system,mozilla}
# deno compile 2.4 overflows a thread's stack when npm packages are embedded.
export RUST_MIN_STACK=67108864

die() {
  echo "Error: $*" >&2
  exit 1
}

npm_registry() {
  local url=
  if command -v npm >/dev/null; then url=$(npm config get registry 2>/dev/null) || true; fi
  case $url in http*) ;; *) url=https://registry.npmjs.org/ ;; esac
  echo "${url%/}"
}

# fetch_package PATH SHA512 FILE: a tarball of the npm registry, its hash checked.
fetch_package() {
  local url
  url=$(npm_registry)/$1
  mkdir -p "$(dirname "$3")"
  echo "fetching $url" >&2
  if command -v curl >/dev/null; then curl -fsSL --retry 3 -o "$3.part" "$url"
  elif command -v wget >/dev/null; then wget -q -O "$3.part" "$url"
  elif command -v node >/dev/null; then
    NODE_USE_SYSTEM_CA=1 node -e 'fetch(process.argv[1]).then(async (r) => {
      if (!r.ok) throw new Error(r.status);
      require("fs").writeFileSync(process.argv[2], Buffer.from(await r.arrayBuffer()));
    })' "$url" "$3.part"
  else die "nothing here can download: install curl or npm, or put deno $DENO_VERSION on the PATH"
  fi || die "cannot download $url: check the network, or put deno $DENO_VERSION on the PATH"
  echo "$2  $3.part" | sha512sum --check --status ||
    die "$url has not the expected hash: do not use it; remove $3.part and try again"
  mv "$3.part" "$3"
}

require_x86_64_linux() {
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    die "$1 is fetched for Linux on x86_64 only: install deno $DENO_VERSION or newer and set DENO"
}

install_deno() {
  [ -x "$TOOLS/deno" ] && return
  require_x86_64_linux deno
  local archive=$CACHE/deno.tgz
  fetch_package "@deno/linux-x64-glibc/-/linux-x64-glibc-$DENO_VERSION.tgz" "$DENO_SHA512" "$archive"
  mkdir -p "$TOOLS"
  tar -xzOf "$archive" package/deno >"$TOOLS/deno.part"
  chmod +x "$TOOLS/deno.part"
  mv "$TOOLS/deno.part" "$TOOLS/deno"
  rm "$archive"
}

install_denort() {
  [ -x "$TOOLS/denort" ] && return
  require_x86_64_linux denort
  local archive=$CACHE/denort.tgz
  fetch_package "$DENORT_PACKAGE" "$DENORT_PACKAGE_SHA512" "$archive"
  mkdir -p "$TOOLS"
  # tar is cut short by head once denort is complete
  (tar -xzOf "$archive" package/vlt 2>/dev/null || true) | head -c "$DENORT_BYTES" >"$TOOLS/denort.part"
  echo "$DENORT_SHA256  $TOOLS/denort.part" | sha256sum --check --status ||
    die "denort has not the expected hash: remove $archive and try again"
  chmod +x "$TOOLS/denort.part"
  mv "$TOOLS/denort.part" "$TOOLS/denort"
  rm "$archive"
}

# Where Deno looks for it.
install_esbuild() {
  [ "$(version_of "$DENO")" = "$DENO_VERSION" ] && [ "$(uname -sm)" = "Linux x86_64" ] || return 0
  local place archive=$CACHE/esbuild.tgz
  place=$("$DENO" info --json --no-config | sed -n 's/^ *"denoDir": "\(.*\)",*$/\1/p')/dl/esbuild-$ESBUILD_VERSION
  [ -x "$place/esbuild-linux-x64" ] && return
  fetch_package "@esbuild/linux-x64/-/linux-x64-$ESBUILD_VERSION.tgz" "$ESBUILD_SHA512" "$archive"
  mkdir -p "$place"
  tar -xzOf "$archive" package/bin/esbuild >"$place/part"
  chmod +x "$place/part"
  mv "$place/part" "$place/esbuild-linux-x64"
  rm "$archive"
}

version_of() { "$1" --version 2>/dev/null | sed -n '1s/^deno \([0-9.]*\).*/\1/p'; }

is_new_enough() {
  local version
  version=$(version_of "$1")
  [ -n "$version" ] && [ "$(printf '%s\n' "$DENO_VERSION" "$version" | sort -V | head -n 1)" = "$DENO_VERSION" ]
}

find_deno() {
  if [ -n "${DENO:-}" ]; then
    command -v "$DENO" >/dev/null || die "DENO=$DENO is no program: correct it or unset it"
    is_new_enough "$DENO" || die "DENO=$DENO is older than $DENO_VERSION: update it or unset DENO"
  elif command -v deno >/dev/null && is_new_enough deno; then DENO=$(command -v deno)
  else
    install_deno
    DENO=$TOOLS/deno
  fi
}

# Without jsr.io and dl.deno.land the same standard library comes from npm, and denort as above.
has_open_internet() {
  "$DENO" eval --quiet 'const wanted = ["https://jsr.io/@std/cli/meta.json", "https://dl.deno.land/release-latest.txt"];
    const answers = wanted.map(async (url) => {
      const answer = await fetch(url, { signal: AbortSignal.timeout(5000) });
      await answer.body?.cancel();
      return answer.ok;
    });
    Deno.exit((await Promise.all(answers)).every(Boolean) ? 0 : 1);' 2>/dev/null
}

choose_packages() {
  find_deno
  if has_open_internet; then
    # What jsr adds must not change the file that is checked in.
    cp deno.lock "$CACHE/deno.lock"
    DENO_FLAGS=(--lock="$CACHE/deno.lock")
    BUILD_WITH="Deno $(version_of "$DENO") ($DENO), standard library from jsr.io"
  else
    if [ "$(version_of "$DENO")" != "$DENO_VERSION" ]; then
      install_deno
      DENO=$TOOLS/deno
    fi
    DENO_FLAGS=(--import-map=npm_imports.json --lock=deno.lock --frozen)
    BUILD_WITH="Deno $DENO_VERSION ($DENO), standard library and runtime from the npm registry (jsr.io or dl.deno.land is out of reach)"
  fi
}

use_denort_of_npm() {
  case " ${DENO_FLAGS[*]} " in *" --frozen "*) ;; *) return ;; esac
  install_denort
  export DENORT_BIN=$TOOLS/denort
}
