#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run_tests.sh DIR BUILD TEST...: runs tests (BUILD/tests/KIND/test_x) as root on Debian 12's kernel in QEMU, by emulation (that kernel has no UFFDIO_MOVE and no UFFDIO_POISON); those that start the daemons find BUILD/bin there as
# here. DIR keeps the kernel package and the initrd. 0 all passed; 1 one did not, or did not end, or QEMU or the kernel can't be had: nothing is skipped.
set -euo pipefail
dir=$1 build=$2
shift 2
limit_seconds=${SECPOOL_VM_SECONDS:-900}

fail() {
	echo "check-vm-tests: $*" >&2
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
mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp,build/bin}
cp "$(command -v busybox)" "$root/bin/busybox"
programs=("$build"/bin/secpool{,-keymgrd,-hotplugd,-vtpm})
cp "${programs[@]}" "$root/build/bin"
for test in "$@"; do
	to=$root/build/${test#"$build"/}
	mkdir -p "${to%/*}"
	cp "$test" "$to"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
ldd "${programs[@]}" "$@" | grep -o '/[^ ):]*\.so[^ ):]*' | sort -u | while read -r library; do
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
cd /build/tests
for test in */*; do
	folder=/dev/shm/t
	mkdir -p $folder/tmp
	begin=$(cut -d. -f1 /proc/uptime)
	SECPOOL_RUNTIME_DIR=$folder/run TMPDIR=$folder/tmp timeout -s KILL 240 "./$test" >/tmp/out 2>&1 </dev/null
	rc=$?
	[ $rc = 0 ] || tail -n 40 /tmp/out
	[ $rc = 0 ] || for log in $folder/run/log/*.log; do [ -s "$log" ] && echo "---- $log" && tail -n 20 "$log"; done
	echo "VM result $test $rc ($(($(cut -d. -f1 /proc/uptime) - begin)) s)"
	for program in secpool-keymgrd secpool-hotplugd secpool-vtpm; do killall -q -KILL $program; done
	rm -rf $folder
done
echo "VM end"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$dir/initrd"

timeout "$limit_seconds" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2G -nodefaults -no-user-config -display none -no-reboot -net none \
	-kernel "$kernel" -initrd "$dir/initrd" -serial stdio </dev/null \
	-append 'console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on tsc=reliable secretmem.enable=1' | sed -u 's/\r$//' | tee "$dir/console.log" | grep --line-buffered '^VM ' || true

failed=0
for test in "$@"; do
	name=${test#"$build"/tests/}
	result=$(sed -n "s|^VM result $name \([0-9]*\) .*|\1|p" "$dir/console.log")
	[ "$result" = 0 ] || { echo "FAIL: $name: ${result:-no result}, see $dir/console.log" && failed=1; }
done
exit $failed
