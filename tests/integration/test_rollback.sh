#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The state of a device's TPM is put back to an older one while no daemon runs: its counters went back, and it is refused with that reason, though it has the right keys and measurements. timeout: 120
set -u
B=$(cd "${B:-build}" && pwd)
S=$B/bin/secpool
work=$(mktemp -d /dev/shm/spr.XXXXXX)
export SECPOOL_RUNTIME_DIR=$work/run
trap '"$S" down >/dev/null 2>&1; rm -rf "$work"' EXIT
fail() {
	echo "failed: $*" >&2
	exit 1
}

# what `secpool down` ends, without what it removes
stop() {
	for name in hotplugd keymgrd; do
		local pid
		pid=$(cat "$SECPOOL_RUNTIME_DIR/$name.pid" 2>/dev/null | grep -oE '^[0-9]+' | head -n 1)
		[ -n "$pid" ] || fail "no process id of $name"
		kill -TERM "$pid"
		for _ in $(seq 200); do
			[ -e "/proc/$pid" ] || break
			sleep 0.05
		done
		[ -e "/proc/$pid" ] && fail "$name does not end"
	done
	return 0
}

"$S" up --devices 2 --device-bytes 16M >/dev/null || fail up
stop
cp -a "$SECPOOL_RUNTIME_DIR/devices/dev0/tpm" "$work/old" || fail "no state of the TPM"
# each start of the TPM raises its counter
for _ in 1 2; do
	"$S" up --devices 2 --device-bytes 16M >/dev/null || fail "up again"
	stop
done
rm -rf "$SECPOOL_RUNTIME_DIR/devices/dev0/tpm"
cp -a "$work/old" "$SECPOOL_RUNTIME_DIR/devices/dev0/tpm"
"$S" up --devices 2 --device-bytes 16M >/dev/null 2>&1
"$S" device list | grep -q 'dev0 *quarantined' || { "$S" device list; fail "an older state of the TPM is accepted"; }
"$S" events | grep -q 'attestation-refused.*dev0.*reset counter went back' || fail "the events do not say why"
"$S" device list | grep -q 'dev1 *online' || fail "the other device suffers"
echo "rollback: refused"
