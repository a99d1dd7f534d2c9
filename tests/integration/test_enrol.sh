#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `enrol: operator`: a device that came is kept out until `secpool device enrol`, which takes in the TPM that it proved; that survives a restart of the daemons. A second device with the same serial, and another TPM under the
# same id, are refused, each with its own reason in the events; the latter until the operator says otherwise. timeout: 120
set -u
B=$(cd "${B:-build}" && pwd)
S=$B/bin/secpool
work=$(mktemp -d /dev/shm/spn.XXXXXX)
export SECPOOL_RUNTIME_DIR=$work/run
trap '"$S" down >/dev/null 2>&1; rm -rf "$work"' EXIT
fail() {
	echo "failed: $*" >&2
	"$S" device list >&2
	"$S" events | tail -n 15 >&2
	exit 1
}

state() { "$S" device list 2>/dev/null | grep "^$1 " | tr -s ' ' | cut -d ' ' -f 2; }
wait_state() {
	for _ in $(seq 300); do
		[ "$(state "$1")" = "$2" ] && return 0
		sleep 0.05
	done
	fail "$1 is $(state "$1"), not $2"
}
# id, serial
plug() {
	mkdir -p "$work/new/$1"
	printf '{"id":"%s","serial":"%s","bytes":16777216,"firmware":"secpool-emulated-1.0","domain":"domain-%s","kind":"emulated"}' \
		"$1" "$2" "$1" >"$work/new/$1/identity.json"
	mv "$work/new/$1" "$(readlink -f "$SECPOOL_RUNTIME_DIR/devices")/$1"
}
pid_of() { grep -oE '^[0-9]+' "$SECPOOL_RUNTIME_DIR/$1.pid" | head -n 1; }
event() {
	for _ in $(seq 100); do
		"$S" events 2>/dev/null | grep -q "$1" && return 0
		sleep 0.05
	done
	fail "no event $1"
}

# a pool whose devices nobody has taken in yet is up all the same, and empty
"$S" up --devices 1 --device-bytes 16M >/dev/null || fail up
sed 's/enrol: first-use/enrol: operator/' "$SECPOOL_RUNTIME_DIR/policy.yaml" >"$work/operator.yaml"
"$S" down >/dev/null || fail down
"$S" up --devices 1 --device-bytes 16M --policy "$work/operator.yaml" >"$work/out" || fail "up with enrol: operator"
grep -q '1 not online' "$work/out" || fail "up says: $(cat "$work/out")"
[ "$(state dev0)" = quarantined ] || fail "dev0 is $(state dev0)"
"$S" device enrol dev0 >/dev/null || fail "enrol dev0"
wait_state dev0 online
"$S" down >/dev/null || fail down

"$S" up --devices 1 --device-bytes 16M >/dev/null || fail up
sed -i 's/enrol: first-use/enrol: operator/' "$SECPOOL_RUNTIME_DIR/policy.yaml"
grep -q 'enrol: operator' "$SECPOOL_RUNTIME_DIR/policy.yaml" || fail "the policy has no enrol: first-use"
kill -HUP "$(pid_of keymgrd)"
event policy-reloaded
# who was known stays so
wait_state dev0 online

plug n1 S-1
wait_state n1 quarantined
event 'attestation-refused.*n1.*not enrolled'
"$S" device list | grep '^n1 ' | grep -q 'not enrolled' || fail "the list does not say why"
"$S" device attest n1 >/dev/null 2>&1 && fail "it was taken in by asking again"
[ "$(state n1)" = quarantined ] || fail "n1 is $(state n1)"
"$S" device enrol dev0 >"$work/out" 2>&1 && fail "a device that is in use is enrolled again"
grep -q 'nothing to enrol' "$work/out" || fail "enrol dev0 says: $(cat "$work/out")"
"$S" device enrol nobody >/dev/null 2>&1 && fail "a device that is not there is enrolled"
"$S" device enrol n1 >"$work/out" || fail "enrol n1"
grep -Eq '^n1: enrolled, EK 000b[0-9a-f]{64}$' "$work/out" || fail "enrol says: $(cat "$work/out")"
wait_state n1 online
event 'device-enrolled.*n1.*serial S-1'
"$S" audit list --json | tr -d "\n " | grep -q "\"kind\":\"device-enrolled\",\"by\":\"enclave\",\"tenant\":null,\"device\":\"n1\"" || fail "the audit does not say that n1 is enrolled"

# the serial is taken
plug n2 S-1
wait_state n2 quarantined
event "attestation-refused.*n2.*its serial 'S-1' is that of device n1"
"$S" device enrol n2 >/dev/null 2>&1 && fail "the serial of a device in use is given away"
[ "$(state n1)" = online ] || fail "n1 is $(state n1)"

# both daemons anew: nobody asks again, and the serial is still n1's
for name in hotplugd keymgrd; do
	pid=$(pid_of $name)
	kill -TERM "$pid"
	for _ in $(seq 200); do
		[ -e "/proc/$pid" ] || break
		sleep 0.05
	done
done
"$S" up --devices 1 --device-bytes 16M >/dev/null 2>&1
wait_state n1 online
wait_state n2 quarantined
"$S" events | grep 'attestation-refused.*n2' | tail -n 1 | grep -q "that of device n1" || fail "the serial is forgotten"

# another TPM under the id: refused, and taken in when the operator says so
"$S" device pull n1 >/dev/null || fail pull
rm -rf "$SECPOOL_RUNTIME_DIR/devices/n1/tpm" "$SECPOOL_RUNTIME_DIR/devices/n1/ak.blob"
"$S" device plug n1 >/dev/null 2>&1 && fail "another TPM is accepted"
wait_state n1 quarantined
event 'attestation-refused.*n1.*not the one this id was first accepted with'
"$S" device enrol n1 >/dev/null || fail "enrol n1 again"
wait_state n1 online
echo "enrolment: by the operator alone, kept, serials kept"
