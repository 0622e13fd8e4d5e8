#!/usr/bin/env bash
# Makes a bare Debian with systemd in .cache/debian, from the archive that this host's apt uses: once.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=.cache/debian

mkdir -p .cache
exec 9>.cache/debian.lock
flock 9
[ ! -e "$root/etc/gretun-root" ] || exit 0
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
archive() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Origin: Debian' \
    "Codename: $codename" | head -n 1
}
[ -n "$(archive)" ] || apt-get -qq update >/dev/null
rm -rf --one-file-system "$root.new"
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,iproute2,iputils-ping --dpkgopt=force-unsafe-io \
  "$codename" "$root.new" "$(archive)"
rm -rf "$root.new/usr/share/"{doc,man,locale}
touch "$root.new/etc/gretun-root" # last: it is whole
mv "$root.new" "$root"
