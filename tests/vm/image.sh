#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# image.sh DIR PACKAGE OUT PROGRAM...: a guest of Debian's kernel PACKAGE (linux-image-amd64, linux-image-cloud-amd64), which is unpacked below DIR and never installed on this machine: OUT.kernel and
# OUT.initrd, with the CXL modules, cxl, ndctl and daxctl, and the programs in /secpool. Its init takes commands on the second serial line: a line is run, and answered by its output and "@@N STATUS".
# Exit status 1 with a reason when something can't be had.
set -euo pipefail
dir=$1 package=$2 out=$3
shift 3

fail() {
	echo "check-vm: $*" >&2
	exit 1
}

mkdir -p "$dir"
real=$(apt-cache depends "$package" 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
[ -n "$real" ] || fail "apt knows no $package: apt-get update"
version=${real#linux-image-}
if [ ! -e "$dir/$real/boot/vmlinuz-$version" ]; then
	(cd "$dir" && apt-get download -qq "$real" >/dev/null 2>&1) || fail "package $real can't be downloaded"
	dpkg -x "$dir/${real}"_*.deb "$dir/$real"
	depmod -b "$dir/$real" "$version"
fi
cp "$dir/$real/boot/vmlinuz-$version" "$out.kernel"

root=$(mktemp -d "$dir/root.XXXXXX")
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,dev,etc,proc,sys,run,tmp,secpool,var/lib,usr/bin,lib/modules/"$version"}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(command -v cxl)" "$(command -v ndctl)" "$(command -v daxctl)" "$root/usr/bin/"
cp "$@" "$root/secpool/"
{ ldd "$root"/usr/bin/* "$root"/secpool/* 2>/dev/null || true; } | grep -o '/[^ ):]*\.so[^ ):]*' | sort -u | while read -r library; do
	mkdir -p "$root${library%/*}"
	[ -e "$root$library" ] || cp -L "$library" "$root$library"
done

# the modules, and those that they need; an empty folder of settings, for nvdimm's has an "install" line
mkdir -p "$dir/no-settings"
for module in cxl_acpi cxl_pci cxl_mem cxl_port cxl_pmem libnvdimm nd_pmem dax_pmem device_dax dax_cxl hwpoison_inject tpm_tis; do
	modprobe -C "$dir/no-settings" -d "$dir/$real" -S "$version" --show-depends "$module" 2>/dev/null | awk '/^insmod/ { print $2 }' || true
done | sort -u | while read -r file; do
	to=$root/lib/modules/$version/${file#*/lib/modules/"$version"/}
	mkdir -p "${to%/*}"
	cp "$file" "$to"
	case $to in *.xz) xz -d "$to" ;; esac
done
cp "$dir/$real/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/secpool:/bin:/usr/bin HOME=/tmp
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t debugfs debug /sys/kernel/debug
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
modprobe -a cxl_acpi cxl_pci cxl_mem cxl_port cxl_pmem libnvdimm nd_pmem dax_pmem device_dax 2>/dev/null
modprobe dax_cxl 2>/dev/null # of newer kernels: volatile regions
mount -t tracefs trace /sys/kernel/tracing
exec 3<>/dev/ttyS1
stty raw -echo <&3
# one line in, one command; a syntax error ends the inner shell only
cat >/run/serve <<'SERVE'
while IFS= read -r line <&3; do eval "$line" </dev/null; done >&3 2>&1
SERVE
echo "@@ready" >&3
while :; do
	sh /run/serve
	echo "@@broken" >&3
done
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$out.initrd"
