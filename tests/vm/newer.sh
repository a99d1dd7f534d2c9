#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# newer.sh DIR FILE...: the leg of check-vm that needs QEMU 10 and Linux 6.12. They are taken from bookworm-backports, unpacked below DIR and never installed: DIR/qemu is QEMU's tree, DIR/apt.conf makes apt-cache and apt-get see
# that suite, with lists of its own. The FILEs go into the guest. Exit status 77 with a reason when the packages can't be had.
set -euo pipefail
mkdir -p "$1"
dir=$(cd "$1" && pwd)
here=$(dirname "$0")
shift
packages="qemu-system-x86 qemu-system-common qemu-system-data"

skip() {
	echo "check-vm: the newer leg is skipped: $*" >&2
	exit 77
}

mkdir -p "$dir"/{lists/partial,cache/archives/partial,qemu,none}
for suite in bookworm bookworm-backports; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main"
done >"$dir/sources.list"
printf 'Package: *\nPin: release n=bookworm-backports\nPin-Priority: 900\n' >"$dir/preferences"
cat >"$dir/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "$dir/none";
Dir::Etc::preferences "$dir/preferences";
Dir::Etc::preferencesparts "$dir/none";
Dir::State::lists "$dir/lists";
Dir::Cache "$dir/cache";
CONF
export APT_CONFIG=$dir/apt.conf
apt-get update -qq >"$dir/update.log" 2>&1 || skip "apt-get update: $(tail -n 1 "$dir/update.log")"
version=$(apt-cache policy qemu-system-x86 | awk '/Candidate:/ { print $2 }')
dpkg --compare-versions "$version" ge 1:10 || skip "bookworm-backports has QEMU $version, and QEMU 10 is needed"
if [ "$(cat "$dir/qemu.version" 2>/dev/null)" != "$version" ]; then
	rm -rf "$dir/qemu" "$dir"/qemu*.deb
	mkdir "$dir/qemu"
	# shellcheck disable=SC2086 # a list of names
	(cd "$dir" && apt-get download -qq $packages >download.log 2>&1) || skip "apt-get download $packages: $(tail -n 1 "$dir/download.log")"
	for package in "$dir"/qemu*.deb; do
		dpkg -x "$package" "$dir/qemu"
	done
	missing=$(ldd "$dir/qemu/usr/bin/qemu-system-x86_64" | awk '/not found/ { print $1 }' | tr '\n' ' ')
	[ -z "$missing" ] || skip "QEMU $version needs $missing"
	echo "$version" >"$dir/qemu.version"
fi
"$here/image.sh" "$dir" linux-image-amd64 "$dir/guest" "$@" || skip "no guest with the kernel of bookworm-backports"
"$here/check_vm.py" "$dir/guest" "$dir/run" newer
