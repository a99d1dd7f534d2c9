#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What `make install` leaves, as its user finds it: the header in C11 and C++17 by two compilers, exactly the functions of the header exported under a version, programs built by pkg-config
# (shared and static, C and C++) that run on the installed daemons, DESTDIR, man pages and units. timeout: 120
set -eu
cd "$(dirname "$0")/../.."
B=${B:-build}
case ${SAN:-} in
asan) flags='-fsanitize=address,undefined' ;;
tsan) flags='-fsanitize=thread' ;;
*) flags= ;;
esac
strict='-Wall -Wextra -Wpedantic -Werror'
work=$(mktemp -d "${TMPDIR:-/tmp}/install.XXXXXX")
root=$work/root prefix=/opt/secpool
here=$root$prefix
trap '[ -z "${up:-}" ] || "$here/bin/secpool" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

fail() { echo "$*" >&2; exit 1; }

# without what an outer make hands down: it is another make
env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s ${SAN:+SAN=$SAN} install "DESTDIR=$root" "PREFIX=$prefix" >"$work/log" 2>&1 || { cat "$work/log"; fail "make install failed"; }
[ "$(ls "$root")" = opt ] || fail "make install wrote outside PREFIX: $(ls "$root")"
for file in bin/secpool bin/secpool-keymgrd bin/secpool-hotplugd bin/secpool-vtpm bin/secpool-bench bin/secpool-torture lib/libsecpool.so lib/libsecpool.a \
	include/secpool.h include/secpool_error.h lib/pkgconfig/secpool.pc share/secpool/default.yaml \
	lib/systemd/system/secpool-keymgrd.service lib/systemd/system/secpool-hotplugd.service share/man/man1/secpool.1 share/man/man5/secpool-policy.5 share/man/man8/secpool-keymgrd.8; do
	[ -s "$here/$file" ] || fail "$file is not installed"
done
! grep -rlE "@PREFIX@|@VERSION@|$root" "$here/lib/systemd" "$here/lib/pkgconfig" || fail "a file names what is not there once it is installed"
grep -q "^ExecStart=$prefix/bin/secpool-keymgrd " "$here/lib/systemd/system/secpool-keymgrd.service" || fail "the unit starts another program"

# ---- the header, and what is exported ----
header=$here/include/secpool.h
gcc -E -P "$header" | grep -oE '\bsecpool_[a-z_0-9]+ *\(' | tr -d ' (' | sort -u >"$work/declared"
[ "$(wc -l <"$work/declared")" -ge 25 ] || fail "few functions were found in the header: $(wc -l <"$work/declared")"
{
	echo '#include <secpool.h>'
	echo 'typedef void any(void); extern any *const all[]; any *const all[] = {'
	sed 's/.*/(any *)&,/' "$work/declared"
	echo '};'
} >"$work/all.c"
cp "$work/all.c" "$work/all.cc"
for cc in gcc clang; do
	# shellcheck disable=SC2086 # flags
	$cc -std=c11 $strict -I"$here/include" -c "$work/all.c" -o "$work/all.o" || fail "$cc: not C11"
done
for cxx in g++ clang++; do
	# shellcheck disable=SC2086 # flags
	$cxx -std=c++17 $strict -I"$here/include" -c "$work/all.cc" -o "$work/all.o" || fail "$cxx: not C++17"
done
nm -D --defined-only "$here/lib/libsecpool.so" | awk '$2 != "A" { print $3 }' | sort >"$work/exported"
{
	sed 's/$/@@SECPOOL_0/' "$work/declared"
	cat lib/interposed.syms
} | sort >"$work/wanted"
while read -r name; do
	[ -s "$here/share/man/man3/$name.3" ] || fail "there is no man page $name(3)"
done <"$work/declared"
diff "$work/wanted" "$work/exported" || fail "exported (>) is not what the header declares, and what is interposed (<)"
nm -g --defined-only "$here/lib/libsecpool.a" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort >"$work/exported"
sort "$work/declared" lib/interposed.syms | diff - "$work/exported" || fail "the static library shows other names"

# ---- programs, built as the man page says ----
# another library, which knows nothing of secpool, must meet our munmap too
cat >"$work/other.c" <<'C'
#include <sys/mman.h>
int other_munmap(void *at, unsigned long bytes);
int other_munmap(void *at, unsigned long bytes) { return munmap(at, bytes); }
C
cat >"$work/use.c" <<'C'
#include <secpool.h>
#include <stdio.h>
#include <string.h>
#ifdef __cplusplus
extern "C"
#endif
int other_munmap(void *at, unsigned long bytes);
int main(void)
{
	struct secpool_options options;
	struct secpool_region_options wanted;
	struct secpool *pool;
	struct secpool_region *region;
	char *object;

	memset(&options, 0, sizeof options);
	memset(&wanted, 0, sizeof wanted);
	options.size = sizeof options;
	options.local_bytes = 8 << 20;
	wanted.size = sizeof wanted;
	wanted.bytes = 16 << 20;
	if (secpool_open("default", &options, &pool) != SECPOOL_OK || secpool_region_create(pool, &wanted, &region) != SECPOOL_OK) {
		fprintf(stderr, "%s\n", secpool_error_detail());
		return 1;
	}
	memset(secpool_region_address(region), 7, wanted.bytes);
	if (other_munmap(secpool_region_address(region), wanted.bytes) == 0)
		return 2;
	object = (char *)secpool_malloc(pool, 100);
	if (!object || ((char *)secpool_region_address(region))[wanted.bytes - 1] != 7)
		return 3;
	secpool_free(pool, object);
	secpool_close(pool);
	puts("used");
	return 0;
}
C
cp "$work/use.c" "$work/use.cc"
export PKG_CONFIG_PATH=$here/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
[ "$(pkg-config --modversion secpool)" = "$("$here/bin/secpool" --version | awk '{ print $NF }')" ] || fail "pkg-config and the command tell different versions"
cflags=$(pkg-config --cflags secpool) libs=$(pkg-config --libs secpool) static=$(pkg-config --libs --static secpool)
# shellcheck disable=SC2086 # flags
{
	gcc $flags -shared -fPIC "$work/other.c" -o "$work/libother.so"
	other="$work/libother.so -Wl,-rpath,$work -Wl,-rpath,$here/lib"
	gcc -std=c11 $strict $flags $cflags "$work/use.c" $other $libs -o "$work/use_c"
	g++ -std=c++17 $strict $flags $cflags "$work/use.cc" $other $libs -o "$work/use_cc"
	# the static library alone
	mkdir "$work/static" && cp "$here/lib/libsecpool.a" "$work/static"
	gcc -std=c11 $strict $flags $cflags "$work/use.c" $other -L"$work/static" ${static//-L$here\/lib/} -o "$work/use_static"
}
! ldd "$work/use_static" | grep -q libsecpool || fail "the static program wants the shared library"
if [ "${SAN:-}" = tsan ]; then
	echo "built; not run: the default policy's window is not free under TSan"
	exit 0
fi
up=yes
"$here/bin/secpool" up --devices 2 --device-bytes 64M >/dev/null
for program in use_c use_cc use_static; do
	[ "$("$work/$program")" = used ] || fail "$program does not work"
done
"$here/bin/secpool" down
up=
