#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `secpool` with the real daemons: up, the listings, refusals with their exit status, up after a kill -9, down without a trace.
# timeout: 120
set -u
B=${B:-build}
SECPOOL_RUNTIME_DIR=${SECPOOL_RUNTIME_DIR:-/dev/shm/spt-cli.$$}
export SECPOOL_RUNTIME_DIR
S=$B/bin/secpool
OUT=$(mktemp)
failures=0

cleanup() {
	"$S" down >/dev/null 2>&1
	rm -f "$OUT" "$OUT.yaml"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

fail() {
	echo "FAILED: $*"
	cat "$OUT"
	failures=$((failures + 1))
}

# expect STATUS WORDS COMMAND...: the status, and the words in what it prints
expect() {
	status=$1
	words=$2
	shift 2
	"$@" >"$OUT" 2>&1
	got=$?
	[ $got -eq "$status" ] || fail "$* -> $got, not $status"
	grep -q -e "$words" "$OUT" || fail "$*: no '$words' in the output"
}

pid_of() {
	cut -d' ' -f1 "$SECPOOL_RUNTIME_DIR/$1.pid"
}

expect 0 'not running' "$S" down
expect 1 'nobody listens' "$S" status
expect 1 'secpool up' "$S" device list
printf 'version: 1\ntenants:\n  - nam: a\n' >"$OUT.yaml"
expect 1 '.yaml:3: ' "$S" policy check "$OUT.yaml"
expect 1 '.yaml:3: ' "$S" up --policy "$OUT.yaml"
[ ! -e "$SECPOOL_RUNTIME_DIR" ] || fail "a bad policy left a folder"
rm -f "$OUT.yaml"
expect 1 'choose fewer' "$S" up --devices 64 --device-bytes 1T
expect 0 'has been removed' "$S" down

expect 0 '2 online, 64 MiB free' "$S" up --devices 2 --device-bytes 32M
keymgrd=$(pid_of keymgrd)
expect 0 '3 online' "$S" up --devices 3 --device-bytes 32M
[ "$(pid_of keymgrd)" = "$keymgrd" ] || fail "up started a running daemon again"
expect 0 'secret memory' "$S" status
expect 0 '"alive":true' "$S" status --json
expect 0 'dev2 *online' "$S" device list
expect 0 '"state":"online"' "$S" device list --json
expect 0 '"largest_free_bytes":33554432' "$S" device list --json
expect 0 '"fragmentation":0.0' "$S" device list --json
expect 0 'no regions' "$S" region list
expect 0 'default' "$S" tenant list
expect 0 'device-online' "$S" events
expect 0 '"kind":"device-online"' "$S" events --json
expect 0 'pulled' "$S" device pull dev1
expect 0 'dev1 *lost' "$S" device list
expect 1 'lost' "$S" device pull dev1
expect 0 '1 not online' "$S" up
expect 0 'online' "$S" device plug dev1
expect 0 'attested' "$S" device attest dev1
expect 1 'no device' "$S" device attest nodev
expect 0 'overwritten and read back' "$S" device scrub dev0
expect 0 'drained and offline' "$S" device drain dev0
expect 1 'dev0 is offline' "$S" device drain dev0
expect 1 'only one that is online' "$S" device scrub dev0
expect 0 'attested and online' "$S" device attest dev0
expect 0 'allowed by .*policy.yaml, tenants.0. .default.' "$S" policy explain --tenant default --user "$(id -u)" --action session
expect 0 'mirror:2, on_loss: failover' "$S" policy explain --tenant default --user "$(id -u)" --action create:1G,mirror:2
expect 3 'refused by .*may not be tenant' "$S" policy explain --tenant default --user 4000000 --action session
expect 3 'is more than tenant' "$S" policy explain --tenant default --user "$(id -u)" --action create:60T
expect 3 'no tenant' "$S" policy explain --tenant nobody --user "$(id -u)" --action session
expect 1 'expected .session' "$S" policy explain --tenant default --user "$(id -u)" --action dance
expect 2 'all needed' "$S" policy explain --tenant default
expect 1 'expected corrupt' "$S" device inject dev0 sulk
expect 2 'usage' "$S" device inject dev0
expect 2 'no command' "$S" bottom
expect 2 'usage' "$S" device pull
expect 2 'no option' "$S" device plug dev0 --evidence /tmp
expect 1 'another policy' "$S" up --policy policy/example.yaml

kill -9 "$(pid_of keymgrd)"
expect 0 '3 online' "$S" up
kill -9 "$(pid_of hotplugd)"
expect 0 '3 online' "$S" up
[ "$(pid_of keymgrd)" != "$keymgrd" ] || fail "the killed key manager was not started again"
# space that could not be scrubbed stays so: it does not keep the pool from starting
kill -9 "$(pid_of hotplugd)" "$(pid_of keymgrd)"
sqlite3 "$SECPOOL_RUNTIME_DIR/state/directory.db" 'UPDATE extents SET state = 6 WHERE id = (SELECT MAX(id) FROM extents WHERE state = 2)' || fail "the directory is not to be written"
expect 0 '3 online, 64 MiB free' "$S" up
expect 0 '"unscrubbed_bytes":33554432' "$S" device list --json

# another user: refused, with the status that says so
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	other() {
		setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
	}
	for folder in "$SECPOOL_RUNTIME_DIR" "${SECPOOL_RUNTIME_DIR%/*}" "$(dirname "$S")"; do
		other test -x "$folder" || echo "user 65534 can't reach $folder"
	done
	expect 3 '.' other "$S" status
	expect 3 '.' other "$S" down
	expect 3 '.' other "$S" device list
	expect 3 '.' other "$S" up
fi

pids="$(pid_of keymgrd) $(pid_of hotplugd) $(pid_of vtpm)"
expect 0 'nothing is left' "$S" down
[ ! -e "$SECPOOL_RUNTIME_DIR" ] || fail "down left $(find "$SECPOOL_RUNTIME_DIR")"
for pid in $pids; do
	grep -q "^State:.[^ZX]" "/proc/$pid/status" 2>/dev/null && fail "process $pid is left"
done
expect 0 'not running' "$S" down
[ $failures -eq 0 ]
