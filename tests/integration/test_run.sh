#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `secpool run` with a program that knows nothing of secpool (tests/plain): the malloc family, threads, system calls, signals and new programs, all with memory that is out;
# what can't be run is refused, with the reason; status, output and signals are the program's. timeout: 900
set -eu
[ -z "${SAN:-}" ] || { echo "the sanitizers bring a malloc of their own"; exit 77; }
S=$B/bin/secpool
P=$B/tests/plain/plain
F=$B/tests/plain/forking
work=$(mktemp -d "${TMPDIR:-/tmp}/run.XXXXXX")
trap '"$S" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
fail() { echo "failed: $1"; exit 1; }

# refused STATUS TEXT COMMAND...
refused() {
	local want=$1 text=$2 status=0
	shift 2
	"$@" >"$work/output" 2>&1 || status=$?
	[ "$status" = "$want" ] || { cat "$work/output"; fail "$*: status $status, not $want"; }
	grep -q -- "$text" "$work/output" || { cat "$work/output"; fail "$*: does not say '$text'"; }
}

refused 1 "can't be opened" "$S" run -- "$P" where
"$S" up --devices 3 --device-bytes 128M >/dev/null

run() { timeout 60 "$S" run --local-bytes 8M "$@"; }
[ "$("$P" where)" = ordinary ] || fail "memory is in the pool without secpool run"
[ "$(run -- "$P" where)" = pool ] || fail "memory is not in the pool"
[ "$(run --redundancy mirror:2 --on-loss failover -- "$P" where)" = pool ] || fail "mirror:2"
for what in family threads calls signals spawn; do
	[ "$(run -- "$P" $what)" = ok ] || fail "$what"
done
for what in forked forks no-room; do
	[ "$(run -- "$F" $what)" = ok ] || fail "$what"
done
# beside rotations of its keys, which allocate in the same jemalloc as the program
rm -f "$work/enough"
(while [ ! -e "$work/enough" ]; do timeout 60 "$S" tenant rotate default >/dev/null; done) &
rotations=$!
[ "$(run -- "$F" many)" = ok ] || fail "many forks beside rotations"
touch "$work/enough"
wait $rotations || fail "a rotation beside forks"
[ "$(run --fork deny -- "$F" denied)" = ok ] || fail "denied"

# the program's own status, signals, and name; what it starts is in the pool too
status=0
run -- "$P" status || status=$?
[ "$status" = 42 ] || fail "the status is $status"
status=0
(run -- "$P" killed) 2>/dev/null || status=$?
[ "$status" = 143 ] || fail "SIGTERM gives $status"
printf '#!/bin/bash\necho "$1"\n"%s" where\n' "$P" >"$work/script"
chmod +x "$work/script"
[ "$(run -- "$work/script" word | tr '\n' ' ')" = 'word pool ' ] || fail "a script"
[ "$(PATH=$B/tests/plain:$PATH run -- plain where)" = pool ] || fail "a program by its name"

# what can't be run so
refused 2 EFAULT "$S" run --fault-mode inline -- "$P" where
refused 2 redundancy "$S" run --redundancy mirror:9 -- "$P" where
refused 2 'refill needs' "$S" run --on-loss refill -- "$P" where
refused 2 'snapshot or deny' "$S" run --fork maybe -- "$P" where
refused 2 missing "$S" run
refused 1 'not found' "$S" run -- nothing-of-that-name
refused 3 'has no tenant' "$S" run --tenant nobody -- "$P" where
refused 1 'failover needs redundancy' "$S" run --on-loss failover -- "$P" where
refused 1 'at least 4 MiB' "$S" run --local-bytes 1M -- "$P" where
echo 'int main(void){return 0;}' >"$work/static.c"
cc -static -o "$work/static" "$work/static.c"
refused 1 'linked statically' "$S" run -- "$work/static"
printf 'int main(void){return 0;}\n' >"$work/own.c"
cat >>"$work/own.c" <<'TXT'
#include <stddef.h>
static char memory[1 << 20];
static size_t used;
void *malloc(size_t bytes) { void *at = memory + used; used += (bytes + 15) & ~(size_t)15; return at; }
void free(void *at) { (void)at; }
TXT
cc -rdynamic -o "$work/own" "$work/own.c"
refused 1 'allocator of its own' "$S" run -- "$work/own"
refused 1 'uses libsecpool itself' "$S" run -- "$B/tests/examples/vault"
echo text >"$work/text"
chmod +x "$work/text"
refused 1 'neither' "$S" run -- "$work/text"
if [ "$(id -u)" = 0 ]; then
	cp "$P" "$work/setuid"
	chown nobody "$work/setuid"
	chmod u+s "$work/setuid"
	refused 1 setuid "$S" run -- "$work/setuid" where
fi

"$S" down >/dev/null

# what the policy refuses is 3
sed 's/^    redundancy: .*/    redundancy: [none]/' policy/default.yaml >"$work/policy.yaml"
"$S" up --devices 3 --device-bytes 128M --policy "$work/policy.yaml" >/dev/null
refused 3 mirror:2 "$S" run --redundancy mirror:2 -- "$P" where
"$S" down >/dev/null
