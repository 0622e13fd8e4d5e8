#!/bin/bash
# The first process in the virtual machine.
export PATH=/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t ext4 -o nobarrier,noinit_itable /dev/pmem1 /work
ip link set lo up
hostname vm
stty -F /dev/ttyS1 raw -echo
exec >/dev/ttyS1 2>&1 </dev/null
path=$(cat /work/path)
mkdir -p "$path"
mount --bind /work "$path"
cd "$path" || exit
export DENO=/work/deno DENO_DIR=/work/deno_dir NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
# The kernel switches its hooks on and off, as namespaces come and go, by patching its own code; an
# emulated second processor may run into that and crash. Empty chains keep them switched on.
for hook in prerouting input forward output postrouting; do
  echo "add chain inet hooks $hook { type filter hook $hook priority 0; policy accept; }"
done | { echo add table inet hooks; cat; } | nft -f -
bash -c "$(cat command)"
printf '\nguest exit status %s\n' $?
sleep 0.2
reboot -f
