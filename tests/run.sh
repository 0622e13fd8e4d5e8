#!/usr/bin/env bash
# Runs every check and test, as root: format, lint, types, unit tests, tests in network namespaces
# (user-space plane, real NATs), services in a bare Debian and tests in virtual machines (kernel plane, stock Debian kernels).
# Installs what is missing from Debian's packages. Tests make their own namespaces and machines and
# remove them; nothing else of this host's network is touched.
#   --no-vm      leaves the virtual machines out, and says so in the summary
#   --long       also what takes minutes more: every kind of network against every other, what
#                moves and IPv6 on the kernel plane, meetings with the version before, and its exploits
# With CI set in the environment a skipped test is a failure.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/deno.sh

# One emulated machine a line: the kernel's package, and the tests that run there.
MACHINES=(
  "linux-image-cloud-amd64 tests/vm/ways_test.ts tests/vm/once/hard_nat_test.ts tests/vm/once/moving_test.ts tests/vm/once/restart_test.ts"
  "linux-image-cloud-amd64 tests/vm/health_test.ts tests/vm/relay_test.ts tests/vm/tunnel_test.ts tests/vm/up_test.ts"
  "linux-image-6.12-cloud-amd64 tests/vm/tunnel_test.ts tests/vm/up_test.ts"
)
# These take longer than all the rest together.
LONG_MACHINES=(
  "linux-image-cloud-amd64 tests/vm/once/hub_test.ts tests/vm/once/path_mtu_test.ts tests/vm/once/up_ipv6_test.ts tests/vm/once/up_test.ts"
  "linux-image-cloud-amd64 tests/vm/long"
  "linux-image-cloud-amd64 tests/vm/systemd"
)
# Tests that run beside all others of their folder, each group in a process of its own.
NETNS=("lab netcheck portmap situations stun up_ipv6" "health hub guard probe relay segments up_relay"
  "moving hard_nat hostile path_mtu lossy")
UNIT=("cli daemon relay portmap health")
SIM=("hub")
# Program and the package it comes from.
NEEDED="
  ip iproute2
  nft nftables
  ping iputils-ping
  iperf3 iperf3
  turnserver coturn
  miniupnpd miniupnpd-nftables
  bird bird2
  strace strace
  tcpdump tcpdump
  setpriv util-linux
  sshd openssh-server
  modprobe kmod
  systemd-analyze systemd
  systemd-nspawn systemd-container
  mmdebstrap mmdebstrap
  curl curl
  promtool prometheus
  mandoc mandoc
  zsh zsh
  fish fish"
NEEDED_FOR_VM="
  qemu-system-x86_64 qemu-system-x86
  cpio cpio
  mke2fs e2fsprogs"

with_vm=yes with_long=
for argument in "$@"; do
  case $argument in
    --no-vm) with_vm= ;;
    --long) with_long=yes ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "Error: unknown argument $argument. Run tests/run.sh --help to see what there is." >&2; exit 2 ;;
  esac
done
[ "$(id -u)" = 0 ] || die "the tests make network namespaces: run tests/run.sh as root"
export PATH=$PATH:/usr/sbin:/sbin NO_COLOR=1 DENO_DIR=$CACHE/deno_dir
mkdir -p "$CACHE"
log=$(mktemp "$CACHE/tests.XXXXXX") || die "cannot write to $CACHE"
# Coordinators in memory keep their key where root's would be.
coordinator_key=/var/lib/gretun-coord/coord.signing-key
if [ -e "$coordinator_key" ]; then coordinator_key=; fi
made_policy=
tidy() {
  rm -rf "$log"* $coordinator_key $made_policy
  if [ -n "$coordinator_key" ]; then rmdir "${coordinator_key%/*}" 2>/dev/null; fi
}
trap tidy EXIT
trap 'jobs -p | xargs -r kill; wait; exit 130' INT TERM

# --- what the tests need

missing_packages() { # NEEDED...: the packages of programs that are not here
  while read -r program package; do
    [ -z "$program" ] || command -v "$program" >/dev/null || echo "$package"
  done <<<"$*"
}

install_packages() {
  local packages policy=/usr/sbin/policy-rc.d
  packages=$(missing_packages "$NEEDED${with_vm:+$NEEDED_FOR_VM}")
  [ -n "$packages" ] || return 0
  packages=$(tr '\n' ' ' <<<"$packages")
  command -v apt-get >/dev/null || die "missing here: $packages(names of Debian's packages): install them"
  echo "run.sh: installing $packages"
  # Some of them are servers: they must not be started on this host.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made_policy=$policy
  fi
  apt-get -qq update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "apt-get cannot install $packages"; }
}

# Of runs that were killed: namespaces are named after the process that made them.
remove_leftovers() {
  local path name maker
  for path in /run/netns/gretun-*; do
    name=${path##*/}
    maker=$(sed -nE 's/^gretun-[a-z]+-([0-9]+)-.*/\1/p' <<<"$name")
    if [ -z "$maker" ] || kill -0 "$maker" 2>/dev/null; then continue; fi
    ip netns pids "$name" | xargs -r kill -9
    ip netns delete "$name"
  done
  for path in "$CACHE"/machine-*; do
    maker=$(sed -nE 's/.*machine-([0-9]+)-.*/\1/p' <<<"$path")
    if [ -z "$maker" ] || kill -0 "$maker" 2>/dev/null; then continue; fi
    umount -q "$path/root"
    rm -rf --one-file-system "$path"
  done
}

# --- stages and jobs

passed=0 failed=0 skipped=0

# stage NAME COMMAND...: shows the output; counts by the test runner's last line, or as one check.
stage() {
  local name=$1 status started=$SECONDS
  shift
  echo "run.sh: $name"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  take_result "$name" "$status" "$log"
  echo "run.sh: $((SECONDS - started)) s"
}

take_result() { # NAME STATUS LOG
  local name=$1 status=$2 summary
  summary=$(grep -aE '^(ok|FAILED) \| [0-9]+ passed' "$3" | tail -n 1)
  if [ -n "$summary" ]; then
    passed=$((passed + $(count passed "$summary")))
    skipped=$((skipped + $(count ignored "$summary")))
    local failures
    failures=$(count failed "$summary")
    if [ "$status" != 0 ] && [ "$failures" = 0 ]; then failures=1; fi
    failed=$((failed + failures))
  elif [ "$status" = 0 ]; then passed=$((passed + 1))
  else failed=$((failed + 1))
  fi
  [ "$status" = 0 ] || {
    echo "run.sh: FAILED: $name"
    # Deno's test runner tells its errors under such a line. What did not come to it, as the process was ended, or
    # ended itself, in one test: those before that have failed, and its end.
    if ! sed -n '/^ ERRORS /,$p' "$3" | grep -a .; then
      grep -aE '( \.\.\. |^ )FAILED|has been running' "$3"
      tail -n 20 "$3"
    fi | head -n 100
  } | tee -a "$log.failures"
}

count() { sed -nE "s/.* ([0-9]+) $1.*/\1/p" <<<"$2" | grep . || echo 0; }

skip() { # NAME REASON
  echo "run.sh: skipped: $1: $2"
  skipped=$((skipped + 1))
}

# Jobs mostly wait for something, or take one core: lanes do several of them side by side. A job is a
# process with a log of its own, which is shown when it has ended.
job_kinds=() job_names=() job_commands=()
job() { # KIND NAME COMMAND, which is split at spaces
  job_kinds+=("$1") job_names+=("$2") job_commands+=("$3")
}

# Does jobs of these kinds, in this order, until none is left. Each is claimed by making its folder.
lane() { # KIND...
  local kind i started running
  # Each job is a process group, which is ended as a whole.
  set -m
  trap 'kill -- ${running:+-"$running"}; exit 130' INT TERM
  for kind in "$@"; do
    for i in "${!job_kinds[@]}"; do
      [ "${job_kinds[i]}" = "$kind" ] && mkdir "$log.$i" 2>/dev/null || continue
      started=$SECONDS
      {
        TIMEFORMAT='%0U %0S'
        time ${job_commands[i]} </dev/null >"$log.$i/output" 2>&1
      } 2>"$log.$i/times" &
      running=$!
      wait "$running"
      echo "$i $? $((SECONDS - started))" >&3
    done
  done
}

do_jobs() {
  local i status seconds user system
  mkfifo "$log.done"
  exec 3<>"$log.done"
  # Emulated machines use a core each, and much memory: no more than two of them. The other jobs wait more than
  # they work.
  lane machine test &
  lane machine test &
  lane test &
  lane test &
  lane test &
  for _ in "${job_names[@]}"; do
    read -r i status seconds <&3
    echo "run.sh: ${job_names[i]}"
    cat "$log.$i/output"
    take_result "${job_names[i]}" "$status" "$log.$i/output"
    read -r user system <"$log.$i/times"
    echo "run.sh: $seconds s, $((${user:-0} + ${system:-0})) s of a core"
  done
}

# A test that hangs must not hold up the rest: its name is the last line of the output then. Files
# with several tests are loaded together: most of what each imports, all do.
run_tests() { # FILE OR FOLDER...
  local all=$log.$BASHPID.ts
  find "$@" -name '*_test.ts' | sort | sed 's/.*/import "..\/&";/' >"$all"
  GRETUN_DENO_FLAGS="${DENO_FLAGS[*]}" timeout --foreground --kill-after=10 1500 \
    "$DENO" test --quiet -A --no-check "${DENO_FLAGS[@]}" "$all"
}

# A job for each group of names, and one before them for what is left of the folder, which takes longer.
add_tests() { # FOLDER GROUPS...
  local folder=$1 group name file files left commands=() i
  shift
  left=" $(find "$folder" -name '*_test.ts' | sort | tr '\n' ' ')"
  for group in "$@"; do
    files=
    for name in $group; do
      name=$folder/$name
      [ -d "$name" ] || name+=_test.ts
      [ -e "$name" ] || die "tests/run.sh names $name, which is not there"
      for file in $(find "$name" -name '*_test.ts'); do files+=" $file" left=${left/ $file / }; done
    done
    commands+=("run_tests$files")
  done
  job test "$folder: all others" "run_tests$left"
  for i in "${!commands[@]}"; do job test "$folder: ${*:i+1:1}" "${commands[i]}"; done
}

run_systemd_tests() {
  nice tests/systemd/root.sh && run_tests tests/systemd
}

# Everything that is needed is in the guest's copy of DENO_DIR, and the lock file in its .cache.
run_vm() { # KERNEL TESTS...
  local flags="${DENO_FLAGS[*]}" kernel=$1
  shift
  DENO=$DENO GRETUN_DENO_FLAGS=$flags tests/vm/boot.sh "$kernel" "export GRETUN_DENO_FLAGS='$flags'
    find $* -name '*_test.ts' | sed 's/.*/import \".\/&\";/' >all_test.ts
    \$DENO test --quiet -A --no-check --cached-only $flags all_test.ts"
}

install_packages
remove_leftovers
choose_packages
echo "run.sh: $BUILD_WITH"
stage "compile.sh" ./compile.sh

if [ -z "$with_vm" ]; then skip "tests in emulated machines" "--no-vm"
elif ! command -v apt-get >/dev/null; then
  skip "tests in emulated machines" "no apt-get to fetch Debian's kernels with"
else
  if [ -n "$with_long" ]; then MACHINES+=("${LONG_MACHINES[@]}"); fi
  for machine in "${MACHINES[@]}"; do job machine "emulated machine: $machine" "run_vm $machine"; done
fi
if ! command -v apt-get >/dev/null; then skip "services under systemd" "no apt-get to fetch Debian with"
else job test "services under systemd" run_systemd_tests
fi
# What takes long comes first, so that nothing is left to itself at the end.
add_tests tests/netns "${NETNS[@]}"
add_tests tests/sim "${SIM[@]}"
add_tests tests/unit "${UNIT[@]}"
job test "types" "$DENO check --quiet ${DENO_FLAGS[*]} main.ts coord.ts lib tests bench"
job test "format" "$DENO fmt --quiet --check"
job test "lint" "$DENO lint --quiet"
job test "rules of the source" "run_tests tests/imports_test.ts"
if [ -n "$with_long" ]; then
  if tests/version_before.sh; then
    job test "meetings with the version before" "run_tests tests/long/versions_test.ts"
    job test "exploits of the version before" "run_tests tests/long/exploits_test.ts"
    if [ -n "$with_vm" ] && command -v apt-get >/dev/null; then
      job machine "exploits of the version before, emulated machine" \
        "run_vm linux-image-cloud-amd64 tests/vm/exploits_test.ts"
    fi
  else skip "meetings with the version before" "its programs could not be built"
  fi
  job test "long tests in network namespaces" "run_tests tests/long/matrix_test.ts tests/long/open_input_test.ts"
fi
do_jobs

# Once more, where whoever looks at the end of the output finds it.
if [ -e "$log.failures" ]; then cat "$log.failures"; fi
echo "run.sh: $((SECONDS / 60)) min $((SECONDS % 60)) s in all"
echo "$passed passed, $failed failed, $skipped skipped"
if [ -n "${CI:-}" ] && [ "$skipped" -gt 0 ]; then exit 1; fi
[ "$failed" = 0 ]
