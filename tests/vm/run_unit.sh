#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run_unit.sh DIR PROGRAM...: runs test programs as root on Debian 12's kernel in QEMU, by emulation (that kernel has no UFFDIO_MOVE and no UFFDIO_POISON).
# DIR keeps the kernel package and the initrd. 0 all passed; 1 one did not, or did not end, or QEMU or the kernel can't be had: nothing is skipped.
set -euo pipefail
dir=$1
shift
limit_seconds=${SECPOOL_VM_SECONDS:-300}

fail() {
	echo "check-vm-unit: $*" >&2
	exit 1
}

need() { # program package
	command -v "$1" >/dev/null && return
	[ "$(id -u)" = 0 ] || fail "$1 is missing: apt-get install $2"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1 || fail "package $2 can't be installed"
}

mkdir -p "$dir"
need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need cpio cpio

# the kernel is unpacked here, never installed on this machine
package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
[ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64: apt-get update"
kernel=$dir/$package/boot/vmlinuz-${package#linux-image-}
if [ ! -e "$kernel" ]; then
	(cd "$dir" && apt-get download -qq "$package" >/dev/null 2>&1) || fail "package $package can't be downloaded"
	dpkg -x "$dir/${package}"_*.deb "$dir/$package"
fi

root=$dir/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,tests}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$@" "$root/tests"
ldd "$@" | grep -o '/[^ ):]*\.so[^ ):]*' | sort -u | while read -r library; do
	mkdir -p "$root${library%/*}"
	cp -L "$library" "$root$library"
done
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
echo "VM kernel $(uname -r)"
cd /tests
for test in *; do
	timeout 120 "./$test" >/tmp/out 2>&1 </dev/null
	rc=$?
	[ $rc = 0 ] || tail -n 40 /tmp/out
	echo "VM result $test $rc"
done
echo "VM end"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$dir/initrd"

timeout "$limit_seconds" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1G -nodefaults -no-user-config -display none -no-reboot -net none \
	-kernel "$kernel" -initrd "$dir/initrd" -serial stdio </dev/null \
	-append 'console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on tsc=reliable secretmem.enable=1' | tr -d '\r' | tee "$dir/console.log" | grep --line-buffered '^VM ' || true

failed=0
for test in "$@"; do
	name=${test##*/}
	rc=$(sed -n "s/^VM result $name //p" "$dir/console.log")
	case $rc in
	0) ;;
	*) echo "FAIL: $name: ${rc:-no result}, see $dir/console.log" && failed=1 ;;
	esac
done
exit $failed
