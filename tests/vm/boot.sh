#!/usr/bin/env bash
# Boots a stock Debian kernel in qemu and runs a command there as root, in a copy of this repository:
#   tests/vm/boot.sh linux-image-cloud-amd64 'SHELL COMMAND'
# Output and exit status are the command's; one that names tests/vm/systemd finds the bare Debian there,
# tests/vm/exploits_test.ts the programs of the version before. The guest's clock advances by its instructions,
# 2 ns each, and jumps over idle time: time limits in there do not depend on how busy this host is, figures
# repeat within a percent, and a machine takes one core of the host. The first argument is the Debian package
# that depends on the kernel wanted. Kernel and root disk are kept in GRETUN_TEST_CACHE (default
# ~/.cache/gretun-tests). Needs root for nothing; qemu runs with software emulation.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
here=$repository/tests/vm
package=$1
shift
cache=${GRETUN_TEST_CACHE:-$HOME/.cache/gretun-tests}
timeout_seconds=${GRETUN_VM_TIMEOUT:-3000}
mkdir -p "$cache"
# Made by runs that were killed.
find "$cache" -maxdepth 1 -name 'run.*' -mmin +120 -exec rm -rf {} +
work=$(mktemp -d "$cache/run.XXXXXX")
qemu_pid=
cleanup() {
  if [ -n "$qemu_pid" ]; then kill "$qemu_pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Machines that start together share what is made once.
exec 8>"$cache/lock"
flock 8

# --- kernel

# unpack_package NAME DIRECTORY: the Debian package's files, without installing it.
unpack_package() {
  rm -rf "$2"
  mkdir -p "$2/deb"
  # the name is a regular expression to apt
  (cd "$2/deb" && apt-get -qq download "^${1//+/\\+}\$" >/dev/null 2>&1) ||
    { echo "Error: cannot download Debian's package $1: run apt-get update, or check the network" >&2; exit 1; }
  dpkg -x "$2"/deb/*.deb "$2"
  rm -r "$2/deb"
}

image=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$image" ] || { echo "Error: apt knows no $package: run apt-get update" >&2; exit 1; }
release=${image#linux-image-}
kernel=$cache/$image
if [ ! -e "$kernel/done" ]; then
  unpack_package "$image" "$kernel"
  depmod -b "$kernel" "$release"
  touch "$kernel/done"
fi
# A package of its own, because installing it would remove a machine's own busybox.
busybox=$cache/busybox/bin/busybox
[ -x "$busybox" ] || unpack_package busybox-static "$cache/busybox"

# --- root disk: programs with their libraries, and the kernel's modules

PROGRAMS="bash curl ip tc nft ping iperf3 kmod setpriv tcpdump miniupnpd nice
  systemd-nspawn nsenter ssh sshd ssh-keygen"
APPLETS="mount umount cat ls sleep mkdir ln rm cp mv kill ps mknod dmesg grep sed head tail hostname env date stty id
  true false sha256sum uname wc sort tr cut chmod touch reboot free seq timeout mktemp basename dirname find xargs"

copy_program() {
  local path
  path=$(command -v "$1") || { echo "Error: no program $1 here" >&2; exit 1; }
  cp -L "$path" "$2/bin/$1"
  copy_libraries "$path" "$2"
}

copy_libraries() {
  local library
  for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$2$(dirname "$library")"
    cp -Lu "$library" "$2$library"
  done
}

make_disk() { mke2fs -q -t ext4 -b 4096 -O ^has_journal -d "$1" "$2" "$3" >/dev/null; }

made_by=$(cat "$here/boot.sh" "$here/guest.sh" | sha256sum | head -c 12)
root=$cache/root-$release-$made_by.img
if [ ! -e "$root" ]; then
  rm -f "$cache/root-$release"-*.img
  tree=$work/root
  mkdir -p "$tree"/{bin,etc,proc,sys,dev,run,tmp,root,var/run,usr,lib/modules,work}
  ln -s bin "$tree/sbin"
  ln -s ../bin "$tree/usr/bin"
  ln -s ../bin "$tree/usr/sbin"
  for program in $PROGRAMS; do copy_program "$program" "$tree"; done
  copy_libraries "$DENO" "$tree"
  ln -s kmod "$tree/bin/modprobe"
  cp "$busybox" "$tree/bin/busybox"
  for applet in $APPLETS; do ln -s busybox "$tree/bin/$applet"; done
  ln -s bash "$tree/bin/sh"
  cp -r "$kernel/lib/modules/$release" "$tree/lib/modules/"
  cp "$here/guest.sh" "$tree/init"
  chmod +x "$tree/init"
  printf 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\nsshd:x:104:65534::/run/sshd:/bin/false\n' >"$tree/etc/passwd"
  printf '127.0.0.1 localhost\n' >"$tree/etc/hosts"
  # systemd-nspawn asks for them.
  mkdir -p "$tree/usr/lib"
  echo ID=debian >"$tree/usr/lib/os-release"
  echo 0123456789abcdef0123456789abcdef >"$tree/etc/machine-id"
  # Debian's iproute2 reads names of protocols and scopes here; pings and getaddrinfo read these.
  for file in protocols services nsswitch.conf; do cp "/etc/$file" "$tree/etc/" 2>/dev/null || true; done
  make_disk "$tree" "$root.new" 400M
  mv "$root.new" "$root"
  rm -rf "$tree"
fi

# --- first RAM disk: what finds the root disk

initrd=$cache/initrd-$release-$made_by.cpio
if [ ! -e "$initrd" ]; then
  rm -f "$cache/initrd-$release"*.cpio
  tree=$work/initrd
  mkdir -p "$tree"/{bin,dev,mnt,modules}
  cp "$busybox" "$tree/bin/busybox"
  { echo '#!/bin/busybox sh'
    for module in virtio_pci virtio_pmem nd_pmem; do
      modprobe -d "$kernel" -S "$release" --show-depends "$module" | sed -n 's/^insmod //p'
    done | awk '!seen[$1]++ { print $1 }' | while read -r path; do
      cp "$path" "$tree/modules/"
      echo "/bin/busybox insmod /modules/$(basename "$path")"
    done
    echo '/bin/busybox mount -t devtmpfs dev /dev'
    echo 'while [ ! -e /dev/pmem0 ] || [ ! -e /dev/pmem1 ]; do /bin/busybox sleep 0.1; done'
    echo '/bin/busybox mount -t ext4 -o nobarrier,noinit_itable /dev/pmem0 /mnt'
    echo '/bin/busybox umount /dev'
    echo 'exec /bin/busybox switch_root /mnt /init'
  } >"$tree/init"
  chmod +x "$tree/init"
  (cd "$tree" && find . | cpio --quiet -o -H newc) >"$initrd.new"
  mv "$initrd.new" "$initrd"
fi

flock -u 8

# --- work disk: the repository as it is now, Deno, its packages, and the command

# Stripped of types here, where it costs a tenth; Deno keeps that by the files' paths, so the guest has
# the repository at the same path.
(cd "$repository" && "$DENO" cache --quiet --no-check ${GRETUN_DENO_FLAGS:-} \
  main.ts coord.ts lib/engine/worker.ts $(find tests/vm -name '*_test.ts')) >&2
tree=$work/work
mkdir -p "$tree/deno_dir"
(cd "$repository" && cp -r --parents main.ts coord.ts lib tests bench deno.json deno.lock npm_imports.json \
  gretun gretun-coord "$tree/")
if [ -e "$repository/.cache/deno.lock" ]; then
  mkdir -p "$tree/.cache"
  cp "$repository/.cache/deno.lock" "$tree/.cache/"
fi
cp "$DENO" "$tree/deno"
(cd "${DENO_DIR:-$HOME/.cache/deno}" &&
  cp -r --parents "gen/file$repository" $(find . -mindepth 1 -maxdepth 1 ! -name gen ! -name dl) "$tree/deno_dir/")
case $* in
  *tests/vm/systemd*)
    "$repository/tests/systemd/root.sh"
    mkdir -p "$tree/.cache"
    cp -a "$repository/.cache/debian" "$tree/.cache/"
    ;;
  *tests/vm/exploits_test.ts*)
    "$repository/tests/version_before.sh"
    mkdir -p "$tree/.cache/version-before"
    cp "$repository"/.cache/version-before/gretun{,-coord} "$tree/.cache/version-before/"
    ;;
esac
echo "$*" >"$tree/command"
echo "$repository" >"$tree/path"
make_disk "$tree" "$work/work.img" 2000M
rm -rf "$tree"

# --- run; the second serial port carries the command's output and, at last, its exit status

# Disks are memory, written to a copy: while a processor waited for a disk, its clock would jump on, by
# minutes on a busy host.
disks=()
for image in "$root" "$work/work.img"; do
  name=disk${#disks[@]}
  disks+=(-object "memory-backend-file,id=$name,mem-path=$image,size=$(stat -c %s "$image"),share=off"
    -device "virtio-pmem-pci,memdev=$name")
done

# Every instruction costs. An emulator does "rep movsb" byte by byte: with neither erms nor rep_good the kernel
# copies and clears by words. Nobody attacks this processor, and its kernel's ciphers and fresh memory
# are not what is tested.
processor=max,-erms
kernel_line="console=ttyS0 quiet panic=-1 clearcpuid=rep_good mitigations=off init_on_alloc=0 cryptomgr.notests nokaslr"

: >"$work/output"
timeout --kill-after 5 "$timeout_seconds" qemu-system-x86_64 -accel tcg,thread=single -icount shift=1,sleep=off \
  -cpu "$processor" -smp 1 -m 3072,slots=2,maxmem=8G -nodefaults -display none -no-reboot \
  -kernel "$kernel/boot/vmlinuz-$release" -initrd "$initrd" -append "$kernel_line" \
  "${disks[@]}" -serial "file:$work/console" -serial "file:$work/output" &
qemu_pid=$!
tail -n +1 -s 0.2 --pid "$qemu_pid" -f "$work/output" | sed -u '/^guest exit status /d; s/\r$//' &
wait "$qemu_pid" || echo "Error: qemu ended after at most $timeout_seconds s" >&2
qemu_pid=
wait
status=$(tr -d '\r' <"$work/output" | sed -n 's/^guest exit status //p')
if [ -z "$status" ]; then
  echo "Error: the machine stopped before the command ended; its console:" >&2
  tail -n 40 "$work/console" >&2
  exit 1
fi
exit "$status"
